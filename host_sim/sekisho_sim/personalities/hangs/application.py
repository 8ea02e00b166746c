# An image that stops answering: only the watchdog can end its trial.
async def main() -> None:
    print("application: this image hangs")
    while True:
        pass
