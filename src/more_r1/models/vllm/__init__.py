"""Models that vLLM holds: as the engine of answers (engine.py), and as what draws the rollouts of stage 2 (rollouts.py)."""
