"""What turns text and video into integers and back."""
