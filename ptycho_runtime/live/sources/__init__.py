"""Where frames come from: each source gives frames with the detector's own id and time, and positions with id or time."""
