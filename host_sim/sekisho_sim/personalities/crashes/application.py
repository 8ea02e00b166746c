# An image whose application breaks down while the agent lives: sent back with the reason HEALTH.
async def main() -> None:
    print("application: this image crashes")
    raise RuntimeError("broken application")
