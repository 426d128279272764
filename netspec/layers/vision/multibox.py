"""MultiBoxLoss: SSD's matching of prior boxes to objects, the choice of negatives, and the two losses."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax, one_hot

from netspec.errors import DataError
from netspec.layers.base import Arity, Layer, Shape, register
from netspec.layers.loss.fork_loss import smooth_l1
from netspec.layers.loss.labels import floor_through, normalization
from netspec.layers.loss.loss import FLT_MIN
from netspec.layers.vision.boxes import decode, encode, overlap
from netspec.layers.vision.detection import check_sizes, priors_and_variances

# Shape suffixes: N = images, P = priors of one image, C = classes, L = 1 (share_location) or C,
# G = objects of the whole batch, image_G = the image each of them is in.

LEAST_OVERLAP = 1e-6
"""Overlaps up to this are none (bbox_util.cpp)."""
UNMATCHED, LEFT_OUT = -1, -2


def match(
    overlap_GP: Tensor, image_G: Tensor, images: int, out_NP: Tensor, threshold: float | None
) -> tuple[Tensor, Tensor]:
    """(matched, best): the object each prior is matched to, or -1, or -2 where `out`; and its greatest
    overlap.

    First each object takes, greatest overlap first, the prior it overlaps most of those still free in its
    image (of equal overlaps the first prior, then the first object). Then, with a `threshold`, every free
    prior takes the object it overlaps most, if by at least as much. overlap is -1 in rows of objects that do
    not count.
    """
    objects, priors = overlap_GP.shape
    overlap_GP = torch.where((overlap_GP > LEAST_OVERLAP) & ~out_NP[image_G], overlap_GP, -1.0)
    index_GP = image_G.unsqueeze(1).expand(-1, priors)
    nothing_NP = overlap_GP.new_zeros(images, priors)
    best_NP = nothing_NP.scatter_reduce(0, index_GP, overlap_GP, "amax")
    matched_NP = torch.where(out_NP, LEFT_OUT, UNMATCHED)
    number_G = torch.arange(objects, device=image_G.device)
    mine_NG = image_G == torch.arange(images, device=image_G.device).unsqueeze(1)
    taken_G = torch.zeros_like(image_G, dtype=torch.bool)
    for _ in range(objects):
        free_GP = (matched_NP == UNMATCHED)[image_G] & ~taken_G.unsqueeze(1)
        value_G, prior_G = torch.where(free_GP, overlap_GP, -1.0).max(1)
        value_NG = torch.where(mine_NG, value_G, -1.0)
        ties_NG = (value_NG == value_NG.amax(1, keepdim=True)) & (value_NG > 0)
        order_NG = torch.where(ties_NG, prior_G * objects + number_G, priors * objects)
        object_N = order_NG.argmin(1)
        found_N1 = ties_NG.any(1, keepdim=True)
        prior_N1 = prior_G[object_N].unsqueeze(1)
        value_N1 = torch.where(found_N1, object_N.unsqueeze(1), matched_NP.gather(1, prior_N1))
        matched_NP = matched_NP.scatter(1, prior_N1, value_N1)
        taken_G = taken_G | ((number_G == object_N.unsqueeze(1)) & found_N1).any(0)
    if threshold is not None:
        first_GP = (overlap_GP == best_NP[image_G]) & (overlap_GP >= threshold) & (overlap_GP > 0)
        rank_GP = torch.where(first_GP, number_G.unsqueeze(1), objects)
        first_NP = torch.full_like(matched_NP, objects).scatter_reduce(0, index_GP, rank_GP, "amin")
        matched_NP = torch.where((matched_NP == UNMATCHED) & (first_NP < objects), first_NP, matched_NP)
    return matched_NP, best_NP


def hardest(loss_NP: Tensor, eligible_NP: Tensor, number_N: Tensor) -> Tensor:
    """Mask of the `number` eligible priors of each image with the greatest loss; of equal losses the
    first."""
    order_NP = torch.where(eligible_NP, loss_NP, float("-inf")).argsort(dim=1, descending=True, stable=True)
    rank_NP = order_NP.argsort(1)
    return eligible_NP & (rank_NP < number_N.unsqueeze(1))


@register("MultiBoxLoss")
class MultiBoxLoss(Layer):
    """loss = (loc_weight * sum of box losses of matched priors + sum of class losses) / normaliser.

    Shapes: locations (N, P * L * 4), confidences (N, P * C), priors (1, 2, P * 4), objects (1, 1, G, 8) as
    (image, label, instance, xmin, ymin, xmax, ymax, difficult), image -1 for none; or with RefineDet's objectness
    (N, P * 2) and first locations (N, P * 4) as well, by which each prior is moved before all else, and never
    counts as a negative where its objectness (the second of the two) is below objectness_score; top (). Priors
    are matched
    to objects (match_type), box losses (SMOOTH_L1, or L2: 0.5 d^2) compare location and coded object. Class
    losses, in nats, run over matched priors and, with MAX_NEGATIVE, in each image the neg_pos_ratio as many
    unmatched ones that overlap every object by less than neg_overlap and have the greatest loss; with
    HARD_EXAMPLE the sample_size priors of greatest loss; with NONE all. normalization: VALID (default) is the
    number of matched priors, BATCH_SIZE N, FULL N * P; at least 1. With share_location false, the box of the
    object's class is compared. LOGISTIC aims at the one-hot label, background included. Gradient for
    locations and confidences only. Raises SpecError when sizes do not fit or options are combined that SSD
    leaves undefined, and DataError for an object of the background's class (on a processor, not compiled). Source:
    Liu et al. 2016 (SSD), multibox_loss_layer and bbox_util.
    """

    family, roles = "loss", ("offsets", "scores", "priors", "boxes", "scores", "offsets")
    bottoms, is_loss = Arity(4, 6), True
    param_field = "multibox_loss_param"

    def setup(self, *shapes: Shape) -> None:
        p = self.param
        self.require(p.num_classes, "num_classes", "needs num_classes > 0")
        self.locations = 1 if p.share_location else p.num_classes
        check_sizes(self, shapes, self.locations, p.num_classes)
        if len(shapes[3]) != 4 or shapes[3][:2] != (1, 1) or shapes[3][3] != 8:
            self.fail(f"needs objects of shape (1, 1, number, 8), found {shapes[3]}", "bottom", 3)
        if len(shapes) == 5:
            self.fail("takes 4 bottoms, or 6 with RefineDet's objectness and first locations, found 5")
        if len(shapes) == 6:
            check_sizes(self, (shapes[5], shapes[4], shapes[2]), 1, 2, (5, 4))
        self.mining = p.mining_type
        if p.HasField("do_neg_mining"):
            self.mining = p.MAX_NEGATIVE if p.do_neg_mining else p.NONE
        if self.mining != p.NONE and not p.share_location:
            self.fail("choosing negatives needs share_location: true", "share_location")
        if not p.share_location and not p.use_prior_for_matching:
            self.fail("share_location: false needs use_prior_for_matching: true", "use_prior_for_matching")
        if self.mining != p.NONE and p.HasField("nms_param"):
            self.fail("suppression among hard examples is not supported; remove nms_param", "nms_param")
        background = 0 <= p.background_label_id < p.num_classes
        if p.map_object_to_agnostic and p.num_classes != 1 + background:
            self.fail(f"map_object_to_agnostic needs num_classes: {1 + background}", "num_classes")
        self.normalized = normalization(self, "VALID")

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, images = self.param, bottoms[0].shape[0]
        location_NPL4 = bottoms[0].reshape(images, -1, self.locations, 4)
        confidence_NPC = bottoms[1].reshape(images, -1, p.num_classes)
        prior_P4, variance_P4 = priors_and_variances(bottoms[2].detach())
        object_G8 = bottoms[3].detach().reshape(-1, 8)
        if object_G8.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_objects(object_G8)
        likely_NP = torch.ones_like(confidence_NPC[..., 0], dtype=torch.bool)
        if len(bottoms) == 6:
            variance = None if p.encode_variance_in_target else variance_P4
            prior_P4 = decode(
                p.code_type, prior_P4, variance, bottoms[5].detach().reshape(images, -1, 4)
            )  # (N, P, 4)
            likely_NP = bottoms[4].detach().reshape(images, -1, 2)[..., 1] >= p.objectness_score
        boxes_NP4 = self.boxes_to_match(location_NPL4.detach(), prior_P4, variance_P4)
        matched_NP, best_NP, some_N = self.matches(boxes_NP4, object_G8)
        positive_NP = matched_NP > UNMATCHED
        mine_NP8 = object_G8[matched_NP.clamp(min=0)]
        label_NP = self.labels(mine_NP8[..., 1].long(), positive_NP)
        box_NP = self.box_losses(location_NPL4, prior_P4, variance_P4, mine_NP8, positive_NP, boxes_NP4)
        if self.mining == p.NONE:
            count_NP = torch.ones_like(positive_NP)
        else:
            ranked_NP = self.class_losses(confidence_NPC.detach(), label_NP)
            if self.mining == p.HARD_EXAMPLE:
                ranked_NP = ranked_NP + box_NP.detach()
            positive_NP, negative_NP = self.mine(ranked_NP, matched_NP, best_NP, some_N, likely_NP)
            count_NP = positive_NP | negative_NP
            # NaN in the scores of a prior that does not count reaches neither the loss nor a gradient.
            confidence_NPC = torch.where(count_NP.unsqueeze(-1), confidence_NPC, 0.0)
        class_NP = self.class_losses(confidence_NPC, label_NP)
        losses_NP = p.loc_weight * torch.where(positive_NP, box_NP, 0.0) + torch.where(
            count_NP, class_NP, 0.0
        )
        return self.normalized(losses_NP, positive_NP, images)

    def check_objects(self, object_G8: Tensor) -> None:
        """Raise DataError where an object is of the background's class."""
        background = self.param.background_label_id
        for row in object_G8[(object_G8[:, 0] >= 0) & (object_G8[:, 1] == background)][:1].tolist():
            text = f"an object of image {int(row[0])} has the background's class {background}"
            raise DataError(f"{self.spec}: {text}; classes of objects start beyond background_label_id")

    def boxes_to_match(self, location_NPL4: Tensor, prior_P4: Tensor, variance_P4: Tensor) -> Tensor:
        """The boxes (N, P, 4) that are compared with objects: the priors, or what the locations say."""
        if self.param.use_prior_for_matching:
            return prior_P4.expand(location_NPL4.shape[0], -1, -1)
        variance = None if self.param.encode_variance_in_target else variance_P4
        return decode(self.param.code_type, prior_P4, variance, location_NPL4[:, :, 0])

    def matches(self, boxes_NP4: Tensor, object_G8: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `match` gives for the objects that count, and which images have any."""
        p, images = self.param, boxes_NP4.shape[0]
        there_G = (object_G8[:, 0] >= 0) & (object_G8[:, 0] < images)
        if not p.use_difficult_gt:
            there_G = there_G & (object_G8[:, 7] == 0)
        image_G = torch.where(there_G, object_G8[:, 0], 0).long()
        overlap_GP = overlap(object_G8[:, None, 3:7], boxes_NP4[image_G])
        overlap_GP = torch.where(there_G.unsqueeze(1), overlap_GP, -1.0)
        out_NP = torch.zeros_like(boxes_NP4[..., 0], dtype=torch.bool)
        if p.ignore_cross_boundary_bbox:
            out_NP = ((boxes_NP4 < 0) | (boxes_NP4 > 1)).any(-1)
        some_N = torch.zeros_like(out_NP[:, 0]).index_put((image_G,), there_G, accumulate=True)
        threshold = p.overlap_threshold if p.match_type == p.PER_PREDICTION else None
        return *match(overlap_GP, image_G, images, out_NP, threshold), some_N

    def labels(self, label_NP: Tensor, positive_NP: Tensor) -> Tensor:
        """The class each prior should show: the object's, or the background's."""
        background = self.param.background_label_id
        if self.param.map_object_to_agnostic:
            label_NP = torch.full_like(label_NP, background + 1)
        return torch.where(positive_NP, label_NP, background)

    def box_losses(
        self,
        location_NPL4: Tensor,
        prior_P4: Tensor,
        variance_P4: Tensor,
        mine_NP8: Tensor,
        positive_NP: Tensor,
        boxes_NP4: Tensor,
    ) -> Tensor:
        """Loss (N, P) of the location of each prior; 0 for those without an object."""
        p = self.param
        matched = positive_NP.unsqueeze(-1)
        # Priors without an object are compared with themselves: no logarithm of 0, no NaN in the gradient.
        target = encode(p.code_type, prior_P4, None, torch.where(matched, mine_NP8[..., 3:7], prior_P4))
        if self.locations == 1:
            guess = location_NPL4[:, :, 0]
        else:
            index = torch.where(positive_NP, mine_NP8[..., 1].long(), 0)[..., None, None]
            guess = location_NPL4.gather(2, index.expand(-1, -1, 1, 4)).squeeze(2)
        guess = torch.where(matched, guess, target)
        if p.encode_variance_in_target:
            difference = (guess - target) / variance_P4
        else:
            difference = guess - target / variance_P4
        if p.bp_inside:
            difference = torch.where((boxes_NP4 >= 0) & (boxes_NP4 <= 1), difference, 0.0)
        difference = torch.where(matched, difference, 0.0)
        losses = 0.5 * difference.square() if p.loc_loss_type == p.L2 else smooth_l1(difference)
        return losses.sum(-1)

    def class_losses(self, confidence_NPC: Tensor, label_NP: Tensor) -> Tensor:
        """Loss (N, P) of the class of each prior, in nats."""
        if self.param.conf_loss_type == self.param.SOFTMAX:
            logp = log_softmax(confidence_NPC, -1).gather(-1, label_NP.unsqueeze(-1)).squeeze(-1)
            return -floor_through(logp, log(FLT_MIN))
        target = one_hot(label_NP, self.param.num_classes).to(confidence_NPC.dtype)
        return binary_cross_entropy_with_logits(confidence_NPC, target, reduction="none").sum(-1)

    def mine(
        self, loss_NP: Tensor, matched_NP: Tensor, best_NP: Tensor, some_N: Tensor, likely_NP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(positives, negatives): which priors count. An image without objects teaches nothing.

        likely: priors that may be negatives.
        """
        p, positive_NP = self.param, matched_NP > UNMATCHED
        if self.mining == p.MAX_NEGATIVE:
            eligible_NP = (matched_NP == UNMATCHED) & (best_NP < p.neg_overlap) & likely_NP
            return positive_NP, hardest(loss_NP, eligible_NP, (positive_NP.sum(1) * p.neg_pos_ratio).long())
        eligible_NP = some_N.unsqueeze(1).expand_as(positive_NP)
        chosen_NP = hardest(loss_NP, eligible_NP, torch.full_like(matched_NP[:, 0], p.sample_size))
        return positive_NP & chosen_NP, (matched_NP == UNMATCHED) & chosen_NP & likely_NP
