"""Evidence: one folder for each event, with the scored crops, the frame, the verdicts and a clip."""
