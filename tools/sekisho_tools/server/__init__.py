"""The embedded update server: hawkBit's device API and the part of its management API that our tools use.

One process, one SQLite file, no set-up. The layers, from the bottom: `tables` and `store` (what is kept, and how it
survives a crash); `releases`, `targets`, `actions`, `rollouts` (what the server knows how to do, as functions of a
transaction); `ddi`, `management`, `web` (the three faces); `app` and `run` (put together and listening).
"""
