"""What is measured of answers, and how sure it is."""
