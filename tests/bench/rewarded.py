"""Learning from rewards by likelihood alone (``learned_from_rewards``): a small policy is trained by PPO on what a
model of an expert's videos pays for the frames it shows (`vpoet.play.gym_reward`), and never sees what the world pays.

The playground, `STEPS` steps an episode. The policy is told where things are (an MLP of two layers), as what is tried
is the reward and not how pictures are read. Each line has the coins an episode, the mean of `JUDGED` scenes that nobody
trained on: of the policy, of one that was trained as long on the coins themselves, of the expert whose videos the model
has seen, of random keys, and of who stands still; ``share`` is the policy's of the expert's.

The bundle is that of the environment's VPOET_EXPERT_BUNDLE (`train/configs/play-expert.yaml`); stable-baselines3 must
be installed (pip install stable-baselines3): it is used here alone.
"""

import os
from typing import Any

import gymnasium
import numpy as np
import torch

import vpoet
from vpoet import worlds
from vpoet.arrays import Floats
from vpoet.play.gym_reward import Likelihood
from vpoet.play.mixtures import FIRST, episode
from vpoet.play.rewards import Terms
from vpoet.worlds.playground.physics import ACTIONS, CLIMBS, FLIES, STANDS
from vpoet.worlds.playground.stepped import Playground

STEPS, JUDGED = 64, 50
UPDATES, ROLLOUT = 40, 1024
UNIT = 16
"""Units of length that are 1 to the policy."""


class Acting(gymnasium.Env[Floats, np.int64]):
    """Scenes number ``first`` and on, one an episode; the reward is a coin's."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's)
    render_mode = "rgb_array"

    def __init__(self, first: int) -> None:
        self._world, self._next = Playground(), first
        self.action_space = gymnasium.spaces.Discrete(len(ACTIONS))
        self._frame = self._world.reset(first)
        self.observation_space = gymnasium.spaces.Box(-8, 8, self._seen().shape, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]:
        super().reset(seed=seed)
        self._frame, self._left = self._world.reset(self._next), STEPS
        self._next += 1
        return self._seen(), {}

    def step(self, action: np.int64) -> tuple[Floats, float, bool, bool, dict[str, Any]]:
        self._frame, reward, ended = self._world.step(int(action))
        self._left -= 1
        return self._seen(), reward, ended, not self._left, {}

    def render(self) -> Any:
        return self._frame

    def _seen(self) -> Floats:
        """Ways to the coin, ladder, ends of platforms and water; speed, what is done, whether there is water."""
        body, level = self._world.body, self._world.level
        (across, up), (low, high) = level.coins[body.coin], level.platforms
        water = level.water or (body.x + 4 * UNIT, body.x + 4 * UNIT)
        places = (across, level.ladder[0], low.left, low.right, high.left, high.right, *water)
        ways = [place - body.x for place in places] + [row - body.y for row in (up, level.floor, low.top, high.top)]
        does = [UNIT * (body.doing == each) for each in (STANDS, FLIES, CLIMBS)]
        told = [*ways, 4 * body.across, 2 * body.down, *does, UNIT * (level.water is not None)]
        return (np.array(told, np.float32) / UNIT).clip(-8, 8)


def learned_from_rewards(_: float) -> dict[str, Any]:
    """PPO on the likelihood, on the coins, and who else plays."""
    from stable_baselines3 import PPO

    model = vpoet.load(os.environ["VPOET_EXPERT_BUNDLE"], device="cpu")
    environments = {"likelihood": Likelihood(Acting(0), model, terms=Terms()), "coins": Acting(0)}
    line: dict[str, Any] = {}
    for name, environment in environments.items():
        learner = PPO(
            "MlpPolicy", environment, n_steps=ROLLOUT, batch_size=128, gamma=0.95, ent_coef=0.01, learning_rate=1e-3,
            policy_kwargs={"net_arch": [128, 128]}, device="cpu", seed=0,
        )  # fmt: skip
        learner.learn(UPDATES * ROLLOUT)
        torch.manual_seed(0)
        line[name] = _coins(learner)
    clips, world = worlds.find("playground"), Playground()
    for name, share in (("expert", 0.0), ("random", 1.0), ("still", None)):
        played = [episode(world, clips, FIRST + at, share, STEPS).rewards for at in range(JUDGED)]
        line[name] = sum(map(sum, played)) / JUDGED
    return {key: round(value, 2) for key, value in line.items()} | {
        "share": round(line["likelihood"] / line["expert"], 3)
    }


def _coins(learner: Any) -> float:
    environment, total = Acting(FIRST), 0.0
    for _ in range(JUDGED):
        seen, _told = environment.reset()
        over = False
        while not over:
            action, _state = learner.predict(seen)
            seen, reward, ended, late, _told = environment.step(action)
            total, over = total + reward, ended or late
    return total / JUDGED
