# An image whose main.py fails before anything else: no agent, no confirmation.
print("application: this image throws")
raise RuntimeError("broken image")
