"""From deformed Gaussians to frames and videos."""
