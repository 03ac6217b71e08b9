"""What the classifiers' training and evaluation share: crops, their augmentation, the measures."""
