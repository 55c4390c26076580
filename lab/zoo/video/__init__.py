"""The small video denoiser of the zoo: clips, their conditions, training and measuring."""
