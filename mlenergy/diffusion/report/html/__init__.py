"""The report as one HTML file: leaderboard, charts, images and the details of every run."""
