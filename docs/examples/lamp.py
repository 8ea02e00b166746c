# A whole application: module `application`, or what `sekisho.run` is given.
import asyncio

import sekisho

lit = asyncio.Event()


def lamp_answers():
    return lit.is_set()  # a new image that cannot even switch the lamp on goes back


async def switch_off():
    print("lamp off")  # before every restart; together the hooks get 30 s


async def main():
    sekisho.on_health(lamp_answers)
    sekisho.on_drain(switch_off)
    while True:
        print("lamp on")
        lit.set()
        await asyncio.sleep(5)
