"""Files and pixels: video, images, contact sheets."""
