"""Networks: the detector, its checkpoint, initial weights, and the teacher."""
