"""More than one process or machine: archives scanned and cameras watched by workers."""
