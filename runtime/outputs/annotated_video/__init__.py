"""Annotated video: the scored frames with boxes, states and curves of p_fake."""
