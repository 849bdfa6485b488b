"""The deployed detector: model bundle, engines, pipeline, server and commands. Never imports torch."""

import os

# onnxruntime sends usage data to its vendor: it resolves names, connects, and keeps a database in the user's
# cache. It reads this variable on import, so it is set before any module of ours imports it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
