"""Parts of the detector's training and measurement: fields, tiles, loss, anchors, average precision."""
