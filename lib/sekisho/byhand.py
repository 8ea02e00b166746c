"""What `sekisho.offline`, `folder` and `serial` do; small devices, which have no use for it, need not load it."""


def offline(agent):
    """The one `door.Door` of an agent."""
    if agent is None:
        raise OSError("no agent on this device")
    if agent.door is None:
        from .door import Door

        agent.door = Door(agent)
    return agent.door


def folder(agent, path: str) -> None:
    """Has a folder looked at."""
    from .card import Card

    agent.card = Card(offline(agent), path)
    agent.call()


def serial(agent, source, target) -> None:
    """Has a serial line answered."""
    import asyncio

    door = offline(agent)
    if not agent.duties or "serial" not in agent.duties.reporter.open:
        raise OSError("the interface serial is closed")
    from .line import Line

    agent.line = asyncio.create_task(Line(door, source, target).serve())
