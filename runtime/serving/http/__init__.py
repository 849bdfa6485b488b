"""HTTP requests, their bodies, routes and responses."""
