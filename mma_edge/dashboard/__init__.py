"""The page that shows a run while it goes on: `mma-edge serve`, `mma-edge run ... --web`. Needs the extra `web`.

    source's thread -> newest frame -> encoder's thread -> board -> one message per viewer, when it has taken the last
    engine -> answers -----------------------------------> board

Nobody on the left ever waits for anybody on the right.
"""
