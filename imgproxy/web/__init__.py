"""The doors: what the house looks like over HTTP. `falcon` lives here alone."""
