"""The tests of the whole project; each file mirrors one of `imgproxy/`."""
