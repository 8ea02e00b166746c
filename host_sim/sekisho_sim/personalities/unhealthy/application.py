# An image whose health check says no: it must be sent back at once, with the reason HEALTH.
import sekisho

sekisho.on_health(lambda: False)


async def main() -> None:
    print("application: this image is unhealthy")
