"""The deployed detector: model bundle, engines, pipeline, server and commands. Never imports torch."""

import os

# onnxruntime reports its use to its vendor: it looks up names, connects, and keeps a database in the user's cache.
# It reads this variable when it is imported, so it is set before any module of ours can import it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
