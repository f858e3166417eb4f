"""MIT-FRNet: multimodal sentiment analysis of video clips with missing data."""
