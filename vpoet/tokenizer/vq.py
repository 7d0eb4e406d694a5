"""Vector quantisation with a codebook learned by moving averages (van den Oord et al., arXiv:1711.00937, appendix A.1).

A vector becomes the nearest of K points, and every point follows the mean of the vectors that chose it. Points that
nobody chooses are dead; they are put where vectors are (Jukebox, Dhariwal et al., arXiv:2005.00341, section 3.1).

Shape letters: N vectors of a call, D numbers of a vector, K codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.processes import Processes
from vpoet.tokenizer.quantiser import Quantised, Quantiser

EPS = 1e-5
"""Laplace smoothing of the counts, so that a code which nobody chooses divides by no zero."""

DISTANCES = 2**24
"""Distances that are held at a time: 64 MiB."""


class VQ(Quantiser):
    """The quantiser. It has no parameters; its state, saved with the weights, are the points and their counts.

    The points are random until the first call in training mode, which takes them from its vectors. Every later one
    moves each point to the average of all vectors that chose it, a step's weight falling by ``decay`` a step; and a
    code whose average count is below ``dead`` times the mean of all starts afresh at one of the vectors (0: never).
    By default that is 349 steps without being chosen. Random numbers come from torch's global CPU generator.
    The loss, in training only, is ``commitment`` * mean (z - point)^2. Where torch.distributed is initialised, all
    processes count together, draw from the vectors of rank 0, and hold the same codebook.

    The width is 8 because in a space of many dimensions few codes are used: ViT-VQGAN (Yu et al., arXiv:2110.04627,
    section 3.2) projects 768 numbers to 32 or 8 before the lookup, LlamaGen (Sun et al., arXiv:2406.06525) to 8.
    """

    codebook: Tensor
    counts: Tensor
    initialised: Tensor

    def __init__(
        self, codebook: int, width: int = 8, *, commitment: float, decay: float = 0.99, dead: float = 0.03
    ) -> None:
        super().__init__((codebook,), width)
        self.commitment = commitment
        self.decay = decay
        self.dead = dead
        self.register_buffer("codebook", torch.randn(codebook, width))
        self.register_buffer("counts", torch.ones(codebook))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, z: Tensor) -> Quantised:
        """Quantise ``z`` [..., D]; gradients pass unchanged. Computed in fp32, also under autocast.

        In training mode the codebook changes, after the codes and points that are returned were read from it.
        """
        with torch.autocast(z.device.type, enabled=False):
            vectors = z.float()
            rows = vectors.detach().reshape(-1, self.width)
            fresh = self.training and not self.initialised
            if fresh:
                self._initialise(rows)
            codes = nearest(rows, self.codebook)
            chosen = self.codebook[codes].view_as(vectors)
            points = chosen + (vectors - vectors.detach())
            loss = vectors.new_zeros(())
            if self.training:
                loss = self.commitment * F.mse_loss(vectors, chosen)
                if not fresh:
                    self._follow(rows, codes)
                    self._revive(rows)
        codes = codes.view(z.shape[:-1])
        return Quantised(codes, points.to(z.dtype), vectors, loss, self.use(codes))

    def codes_to_points(self, codes: Tensor) -> Tensor:
        """Integer codes [...] to the fp32 points [..., D] that `forward` gives for them."""
        return self.codebook[codes.long()]

    @torch.no_grad()
    def _initialise(self, rows: Tensor) -> None:
        """Take the points from ``rows`` [N, D]. With fewer rows than codes some repeat, to be replaced as dead."""
        distinct = min(len(rows), self.size)
        picked = torch.randperm(len(rows))[torch.arange(self.size) % len(rows)]
        self.codebook.copy_(rows[picked.to(rows.device)])
        self.counts.zero_()[:distinct] = len(rows) / distinct
        self.initialised.fill_(True)
        self._agree()

    @torch.no_grad()
    def _follow(self, rows: Tensor, codes: Tensor) -> None:
        """Move the averages by one step. That of the sums is not stored: it is the points times their counts."""
        counts = torch.bincount(codes, minlength=self.size).float()
        sums = torch.zeros_like(self.codebook).index_add_(0, codes, rows)
        everyone = Processes.joined()
        everyone.total(counts)
        everyone.total(sums)
        average = (self.codebook * self._smooth_counts()).lerp_(sums, 1 - self.decay)
        self.counts.lerp_(counts, 1 - self.decay)
        self.codebook.copy_(average / self._smooth_counts())

    @torch.no_grad()
    def _revive(self, rows: Tensor) -> None:
        """Put dead codes, the least counted first, at different vectors of ``rows`` [N, D], with a mean count.

        More dead codes than rows wait for the next call: at equal points only one of them could be chosen.
        """
        mean = self.counts.mean()
        dead = int((self.counts < self.dead * mean).sum())
        if not dead:
            return
        picked = torch.randperm(len(rows))[:dead].to(rows.device)
        codes = self.counts.topk(len(picked), largest=False).indices
        self.codebook[codes] = rows[picked]
        self.counts[codes] = mean
        self._agree()

    def _smooth_counts(self) -> Tensor:
        """[K, 1], with the same total as ``counts``."""
        total = self.counts.sum()
        return ((self.counts + EPS) * (total / (total + self.size * EPS))).unsqueeze(-1)

    def _agree(self) -> None:
        """What rank 0 drew holds for all processes."""
        everyone = Processes.joined()
        everyone.take_first(self.codebook)
        everyone.take_first(self.counts)


def nearest(rows: Tensor, points: Tensor) -> Tensor:
    """Codes [N] of the ``points`` [K, D] nearest to ``rows`` [N, D]: |point|^2 - 2 row.point orders as the distance
    does."""
    squares = points.square().sum(-1)
    chunks = torch.split(rows, max(1, DISTANCES // len(points)))
    return torch.cat([torch.addmm(squares, chunk, points.T, alpha=-2).argmin(-1) for chunk in chunks])
