"""Every objective and modifier by name, in the order in which a picker shows them.

Formulas are those without label smoothing, except where it makes the objective.
"""

from collections.abc import Mapping
from types import MappingProxyType

from workbench.objectives.aot import aot_loss, aot_unpaired_loss
from workbench.objectives.apo import apo_down_loss, apo_zero_loss
from workbench.objectives.bco import RewardShift, bco_loss, bco_pair_loss, density_ratio_weight
from workbench.objectives.cpo import cpo_loss
from workbench.objectives.discopop import discopop_loss
from workbench.objectives.dpo import (
    conservative_dpo_loss,
    dpo_gamma_loss,
    length_normalised_dpo_loss,
    robust_dpo_loss,
)
from workbench.objectives.exo import exo_loss
from workbench.objectives.f_divergence import with_divergence
from workbench.objectives.fairness_penalty import fairness_penalty
from workbench.objectives.ipo import ipo_loss, length_normalised_ipo_loss
from workbench.objectives.kto import kto_loss
from workbench.objectives.ld_dpo import length_desensitised_logps
from workbench.objectives.listwise import lambda_loss, plackett_luce_loss
from workbench.objectives.nca import nca_loss
from workbench.objectives.objective import Hyperparameter, Modifier, Objective, Source
from workbench.objectives.orpo import orpo_loss
from workbench.objectives.projected_gradient import projected_gradient
from workbench.objectives.sft import sft_loss
from workbench.objectives.simpo import alphapo_loss, simpo_loss
from workbench.objectives.slic import hinge_loss
from workbench.objectives.sppo import sppo_hard_loss
from workbench.objectives.tpo import tpo_l_loss, tpo_loss
from workbench.objectives.tr_dpo import synchronised_reference
from workbench.objectives.wpo import wpo_pair_weight

_REFERENCE = ("reference_chosen", "reference_rejected")
_LENGTHS = ("n_chosen", "n_rejected")
_GOLD = ("policy_gold", "n_gold")


def _beta(default: float = 0.1, help: str = "Inverse temperature") -> Hyperparameter:
    return Hyperparameter("beta", default, 0.001, 10.0, help, logarithmic=True)


def _smoothing(default: float, low: float = 0.0) -> Hyperparameter:
    return Hyperparameter(
        "label_smoothing", default, low, 0.49, "Share of labels taken to be wrong"
    )


def _gamma() -> Hyperparameter:
    return Hyperparameter("gamma", 0.5, 0.0, 5.0, "Margin by which the chosen reward should lead")


def _weight(name: str, default: float, help: str) -> Hyperparameter:
    return Hyperparameter(name, default, 0.0, 10.0, help)


_AOT = "Melnyk et al. 2024, Distributional preference alignment of LLMs via optimal transport"
_APO = "D'Oosterlinck et al. 2024, Anchored preference optimization and contrastive revisions"
_BCO = "Jung et al. 2024, Binary classifier optimization for large language model alignment"
_DPO = "Rafailov et al. 2023, Direct preference optimization"
_IPO = "Azar et al. 2023, A general theoretical paradigm to understand learning from preferences"
_TPO = "Saeidi et al. 2024, Triple preference optimization"

_OBJECTIVES = (
    Objective(
        name="dpo",
        title="DPO",
        summary="Logistic loss of the implicit reward margin.",
        formula=r"-\log\sigma(\beta d)",
        source=Source(_DPO, "2305.18290", "Eq. 7"),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=dpo_gamma_loss,
        f_divergences=True,
    ),
    Objective(
        name="dpo_gamma",
        title="DPO^γ",
        summary="DPO with the reference's log-ratio scaled by gamma.",
        formula=r"-\log\sigma(\beta(m+\gamma c))",
        source=Source(
            "Chen et al. 2024, Preference learning algorithms do not learn preference rankings",
            "2405.19534",
            "Eq. 4",
        ),
        needs=_REFERENCE,
        hyperparameters=(
            _beta(),
            Hyperparameter("gamma", 0.5, 0.0, 2.0, "Weight of the reference; 1 is DPO"),
        ),
        call=dpo_gamma_loss,
    ),
    Objective(
        name="dpo_norm",
        title="Length-normalised DPO",
        summary="DPO on log-ratios a token.",
        formula=r"-\log\sigma(\beta(a/n_w-r/n_l))",
        source=Source("Lambert et al. 2024, Tülu 3", "2411.15124", "length-normalised DPO"),
        needs=_REFERENCE + _LENGTHS,
        hyperparameters=(_beta(),),
        call=length_normalised_dpo_loss,
        f_divergences=True,
    ),
    Objective(
        name="cdpo",
        title="Conservative DPO",
        summary="DPO with smoothed labels; stops at a finite margin.",
        formula=r"-(1-\varepsilon)\log\sigma(\beta d)-\varepsilon\log\sigma(-\beta d)",
        source=Source(
            "Mitchell 2023, A note on DPO with noisy preferences and relationship to IPO",
            "",
            "the conservative loss",
        ),
        needs=_REFERENCE,
        hyperparameters=(_beta(), _smoothing(0.1)),
        call=conservative_dpo_loss,
        f_divergences=True,
    ),
    Objective(
        name="robust_dpo",
        title="Robust DPO",
        summary="Unbiased for DPO's loss when labels are flipped at random; can be negative.",
        formula=r"\frac{-(1-\varepsilon)\log\sigma(\beta d)+\varepsilon\log\sigma(-\beta d)}"
        r"{1-2\varepsilon}",
        source=Source(
            "Chowdhury et al. 2024, Provably robust DPO", "2403.00409", "the robust loss"
        ),
        needs=_REFERENCE,
        hyperparameters=(_beta(), _smoothing(0.1)),
        call=robust_dpo_loss,
        f_divergences=True,
    ),
    Objective(
        name="hinge",
        title="Hinge (SLiC)",
        summary="No loss once the scaled margin reaches 1.",
        formula=r"\max(0,\,1-\beta d)",
        source=Source(
            "Zhao et al. 2023, SLiC-HF; with the reference: Liu et al. 2023, arXiv 2309.06657",
            "2305.10425",
            "the calibration loss",
        ),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=hinge_loss,
        f_divergences=True,
    ),
    Objective(
        name="ipo",
        title="IPO",
        summary="Squared distance of the margin from 1 / (2 beta); sums over tokens.",
        formula=r"\left(d-\frac{1}{2\beta}\right)^2",
        source=Source(_IPO, "2310.12036", "Eq. 17"),
        needs=_REFERENCE,
        hyperparameters=(_beta(help="Regularisation, the paper's tau"),),
        call=ipo_loss,
        f_divergences=True,
    ),
    Objective(
        name="ipo_norm",
        title="IPO, length-normalised",
        summary="IPO on log-ratios a token, as TRL computes it.",
        formula=r"\left(\frac{a}{n_w}-\frac{r}{n_l}-\frac{1}{2\beta}\right)^2",
        source=Source(_IPO, "2310.12036", "Eq. 17, means for sums"),
        needs=_REFERENCE + _LENGTHS,
        hyperparameters=(_beta(help="Regularisation, the paper's tau"),),
        call=length_normalised_ipo_loss,
        f_divergences=True,
    ),
    Objective(
        name="exo",
        title="EXO",
        summary="Reverse KL from the smoothed label to the policy's preference.",
        formula=r"q\log\frac{q}{1-\varepsilon}+(1-q)\log\frac{1-q}{\varepsilon},"
        r"\;q=\sigma(\beta d)",
        source=Source(
            "Ji et al. 2024, Towards efficient exact optimization of language model alignment",
            "2402.00856",
            "Eq. 16",
        ),
        needs=_REFERENCE,
        hyperparameters=(_beta(), _smoothing(1e-3, low=1e-4)),
        call=exo_loss,
        f_divergences=True,
    ),
    Objective(
        name="nca",
        title="NCA",
        summary="Raises the chosen answer's own likelihood ratio, not only the difference.",
        formula=r"-\log\sigma(\beta a)-\tfrac12\log\sigma(-\beta a)-\tfrac12\log\sigma(-\beta r)",
        source=Source(
            "Chen et al. 2024, Noise contrastive alignment of language models",
            "2402.05369",
            "the NCA loss for pairs",
        ),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=nca_loss,
    ),
    Objective(
        name="bco_pair",
        title="BCO on pairs",
        summary="Two classifications, good and bad; an upper bound of DPO's loss.",
        formula=r"-\log\sigma(\beta a)-\log\sigma(-\beta r)",
        source=Source(_BCO, "2404.04656", "the BCE loss"),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=bco_pair_loss,
    ),
    Objective(
        name="bco",
        title="BCO",
        summary="BCO with the running mean reward as its threshold and weights for the prompts.",
        formula=r"-\log\sigma(\beta a-\delta)-w\log\sigma(\delta-\beta r)",
        source=Source(_BCO, "2404.04656", "reward shift and density-ratio weights"),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=bco_loss,
        shift=RewardShift(),
    ),
    Objective(
        name="sppo_hard",
        title="SPPO, hard labels",
        summary="Pulls both log-ratios to fixed targets, +1 and -1 over 2 beta.",
        formula=r"\left(a-\frac{1}{2\beta}\right)^2+\left(r+\frac{1}{2\beta}\right)^2",
        source=Source("Wu et al. 2024, Self-play preference optimization", "2405.00675", "Eq. 4.7"),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=sppo_hard_loss,
    ),
    Objective(
        name="aot",
        title="AOT, paired",
        summary="The policy's log-ratios should exceed the reference's, quantile by quantile.",
        formula=r"-\log\sigma(\beta s_k),\;s=\mathrm{sort}(m)-\mathrm{sort}(-c)",
        source=Source(_AOT, "2406.05882", "paired AOT"),
        needs=_REFERENCE,
        hyperparameters=(_beta(), _smoothing(0.0)),
        call=aot_loss,
        batch_level=True,
        by_quantile=True,
    ),
    Objective(
        name="aot_unpaired",
        title="AOT, unpaired",
        summary="The chosen answers' sorted log-ratios should exceed the rejected ones'.",
        formula=r"-\log\sigma(\beta s_k),\;s=\mathrm{sort}(a)-\mathrm{sort}(r)",
        source=Source(_AOT, "2406.05882", "unpaired AOT"),
        needs=_REFERENCE,
        hyperparameters=(_beta(), _smoothing(0.0)),
        call=aot_unpaired_loss,
        batch_level=True,
        by_quantile=True,
    ),
    Objective(
        name="apo_zero",
        title="APO-zero",
        summary="Chosen up, rejected down; for answers better than the policy's.",
        formula=r"1-\sigma(\beta a)+\sigma(\beta r)",
        source=Source(_APO, "2408.06266", "Eq. 7"),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=apo_zero_loss,
    ),
    Objective(
        name="apo_down",
        title="APO-down",
        summary="Both down, the rejected one more; for answers worse than the policy's.",
        formula=r"\sigma(\beta a)+1-\sigma(\beta d)",
        source=Source(_APO, "2408.06266", "Eq. 8"),
        needs=_REFERENCE,
        hyperparameters=(_beta(),),
        call=apo_down_loss,
    ),
    Objective(
        name="discopop",
        title="DiscoPOP",
        summary="Logistic and exponential loss, mixed by the margin; found by a language model.",
        formula=r"-(1-s)\log\sigma(z)+s\,e^{-z},\;z=\beta d,\;s=\sigma(z/\tau)",
        source=Source(
            "Lu et al. 2024, Discovering preference optimization algorithms with and for LLMs",
            "2406.08414",
            "Eq. 5",
        ),
        needs=_REFERENCE,
        hyperparameters=(
            _beta(),
            Hyperparameter("tau", 0.05, 0.01, 1.0, "Width of the mixing zone", logarithmic=True),
        ),
        call=discopop_loss,
        f_divergences=True,
    ),
    Objective(
        name="kto",
        title="KTO",
        summary="Good and bad answers against the policy's mean drift, after prospect theory.",
        formula=r"\tfrac12[\lambda_D(1-\sigma(\beta(a-z_0)))+\lambda_U(1-\sigma(\beta(z_0-r)))]",
        source=Source("Ethayarajh et al. 2024, KTO", "2402.01306", "Eq. 7"),
        needs=(*_REFERENCE, "mismatched"),
        hyperparameters=(
            _beta(),
            _weight("desirable_weight", 1.0, "Weight of good answers"),
            _weight("undesirable_weight", 1.0, "Weight of bad answers"),
        ),
        call=kto_loss,
        batch_level=True,
    ),
    Objective(
        name="simpo",
        title="SimPO",
        summary="Mean log-probabilities as rewards, a target margin, no reference.",
        formula=r"-\log\sigma\left(\frac{\beta}{n_w}\log\pi(y_w)-\frac{\beta}{n_l}\log\pi(y_l)"
        r"-\gamma\right)",
        source=Source("Meng et al. 2024, SimPO", "2405.14734", "Eq. 6"),
        needs=_LENGTHS,
        hyperparameters=(
            _beta(2.0, "Scale of the mean log-probability"),
            _gamma(),
            _smoothing(0.0),
        ),
        call=simpo_loss,
    ),
    Objective(
        name="alphapo",
        title="AlphaPO",
        summary="SimPO with a reward bent by alpha.",
        formula=r"-\log\sigma(\beta(\rho_w-\rho_l)-\gamma),\;\rho=(1-\bar p^{-\alpha})/\alpha",
        source=Source("Gupta et al. 2025, AlphaPO", "2501.03884", "the alpha reward"),
        needs=_LENGTHS,
        hyperparameters=(
            _beta(2.0, "Scale of the reward"),
            _gamma(),
            Hyperparameter("alpha", 0.25, -2.0, 2.0, "Bend of the reward; 0 is SimPO"),
            _smoothing(0.0),
        ),
        call=alphapo_loss,
    ),
    Objective(
        name="orpo",
        title="ORPO",
        summary="Likelihood of the chosen answer and the odds ratio against the rejected one.",
        formula=r"\mathrm{NLL}(x,y_w)-\beta\log\sigma\left(\log\frac{\bar p_w}{1-\bar p_w}"
        r"-\log\frac{\bar p_l}{1-\bar p_l}\right)",
        source=Source("Hong et al. 2024, ORPO", "2403.07691", "Eq. 6 and 7"),
        needs=_LENGTHS,
        hyperparameters=(_beta(help="Weight of the odds ratio, the paper's lambda"),),
        call=orpo_loss,
        batch_level=True,
    ),
    Objective(
        name="cpo",
        title="CPO",
        summary="DPO without a reference, with the chosen answer's likelihood.",
        formula=r"-\log\sigma(\beta m)+\alpha\,\mathrm{NLL}(y_w)",
        source=Source("Xu et al. 2024, Contrastive preference optimization", "2401.08417", "Eq. 3"),
        needs=("n_chosen",),
        hyperparameters=(
            _beta(),
            _weight("sft_weight", 1.0, "Weight of the chosen answer's likelihood"),
            _smoothing(0.0),
        ),
        call=cpo_loss,
        batch_level=True,
    ),
    Objective(
        name="tpo",
        title="TPO",
        summary="Chosen against rejected without a reference, and a gold answer's likelihood.",
        formula=r"-\log\sigma(\beta m)+\alpha\,\mathrm{NLL}(y_{\mathrm{gold}})",
        source=Source(_TPO, "2405.16681", "the TPO loss"),
        needs=_GOLD,
        hyperparameters=(
            _beta(0.01),
            _weight("gold_weight", 1.0, "Weight of the gold answer's likelihood"),
        ),
        call=tpo_loss,
        batch_level=True,
    ),
    Objective(
        name="tpo_l",
        title="TPO-L",
        summary="TPO on mean log-probabilities with a target margin.",
        formula=r"-\log\sigma\left(\beta\left(\frac{\log\pi(y_w)}{n_w}-\frac{\log\pi(y_l)}{n_l}"
        r"\right)-\gamma\right)+\alpha\,\mathrm{NLL}(y_{\mathrm{gold}})",
        source=Source(_TPO, "2405.16681", "the TPO-L loss"),
        needs=_LENGTHS + _GOLD,
        hyperparameters=(
            _beta(0.01),
            _gamma(),
            _weight("gold_weight", 1.0, "Weight of the gold answer's likelihood"),
        ),
        call=tpo_l_loss,
        batch_level=True,
    ),
    Objective(
        name="sft",
        title="SFT",
        summary="Supervised fine-tuning on the chosen answers; the rejected ones are not read.",
        formula=r"-\log\pi(y_w)/\bar n_w",
        source=Source("Cross-entropy of the chosen answers", "", "mean over the batch's tokens"),
        needs=("n_chosen",),
        hyperparameters=(),
        call=sft_loss,
        batch_level=True,
    ),
)

_MODIFIERS = (
    Modifier(
        name="f_divergence",
        title="f-divergence",
        summary="Another divergence than reverse KL; for objectives of the margin.",
        formula=r"a,r\to f'(u):\;1-u^{-1},\;\log\tfrac{2u}{1+u},\;\tfrac{u^{\alpha-1}-1}{\alpha-1}",
        source=Source("Wang et al. 2023, Beyond reverse KL", "2309.16240", "the derivatives f'"),
        hyperparameters=(
            Hyperparameter("coefficient", 0.5, 0.0, 1.0, "alpha of the alpha-divergence"),
        ),
        call=with_divergence,
    ),
    Modifier(
        name="ld_dpo",
        title="LD-DPO",
        summary="Tokens beyond the shorter answer's length count less, in both models.",
        formula=r"\sum_{t\le n}\log\pi(y_t)+\alpha\sum_{t>n}\log\pi(y_t),\;n=\min(n_w,n_l)",
        source=Source(
            "Liu et al. 2024, Length desensitization in DPO",
            "2409.06411",
            "the decoupled likelihood",
        ),
        hyperparameters=(
            Hyperparameter("ld_alpha", 0.5, 0.0, 1.0, "Weight of the excess; 1 is DPO"),
        ),
        call=length_desensitised_logps,
    ),
    Modifier(
        name="wpo",
        title="WPO weights",
        summary="A pair's loss counts by how likely the policy is to write its answers.",
        formula=r"w_ww_l,\;w=\exp\Big(\tfrac1n\sum_t\log\pi(y_t)-\log\sum_v\pi(v)^2\Big)",
        source=Source("Zhou et al. 2024, WPO", "2406.11827", "Eq. 2"),
        hyperparameters=(),
        call=wpo_pair_weight,
    ),
    Modifier(
        name="bco_weights",
        title="BCO density ratio",
        summary="Weights rejected answers where their prompts differ from the chosen ones'.",
        formula=r"w=\mathrm{clip}(p/(1-p)),\;p=P(\mathrm{chosen}\mid x)",
        source=Source(_BCO, "2404.04656", "underlying distribution matching"),
        hyperparameters=(
            Hyperparameter("low", 0.5, 0.01, 1.0, "Least weight", logarithmic=True),
            Hyperparameter("high", 10.0, 1.0, 100.0, "Greatest weight", logarithmic=True),
        ),
        call=density_ratio_weight,
    ),
    Modifier(
        name="tr_dpo",
        title="TR-DPO",
        summary="The reference moves to the policy every so many steps.",
        formula=r"\theta_{\mathrm{ref}}\leftarrow\alpha\theta+(1-\alpha)\theta_{\mathrm{ref}}",
        source=Source(
            "Gorbatovski et al. 2024, Learn your reference model", "2404.09656", "soft update"
        ),
        hyperparameters=(
            Hyperparameter("mixup", 0.6, 0.0, 1.0, "Share of the policy; 1 is the hard update"),
            Hyperparameter("every", 512.0, 1.0, 2048.0, "Steps between updates", logarithmic=True),
        ),
        call=synchronised_reference,
    ),
    Modifier(
        name="projected_gradient",
        title="Projected gradient (our reading)",
        summary="Drops the part of the gradient whose descent lowers the chosen likelihood.",
        formula=r"g-\frac{\max(0,\langle g,h\rangle)}{\|h\|^2}h,\;h=\nabla\log\pi(y_w)",
        source=Source(
            "Won et al. 2025, Differential information distribution", "2505.23761", "our reading"
        ),
        hyperparameters=(),
        call=projected_gradient,
    ),
    Modifier(
        name="plackett_luce",
        title="Plackett-Luce",
        summary="Ranks of several answers in place of one pair.",
        formula=r"-\sum_k\Big(s_{(k)}-\log\sum_{j\ge k}e^{s_{(j)}}\Big)",
        source=Source(_DPO, "2305.18290", "appendix A.3"),
        hyperparameters=(),
        call=plackett_luce_loss,
    ),
    Modifier(
        name="lambda",
        title="LambdaLoss",
        summary="All pairs of a rated list, weighted by what swapping them would change.",
        formula=r"-\sum_{v_i>v_j}\lambda_{ij}\log\sigma(s_i-s_j)",
        source=Source("Liu et al. 2024, LiPO", "2402.01878", "the lambda loss"),
        hyperparameters=(),
        call=lambda_loss,
    ),
    Modifier(
        name="fairness",
        title="Fairness penalty",
        summary="Distance covariance of rewards and protected attributes, added to the loss.",
        formula=r"\lambda\,\mathrm{dCov}^2_U(\hat y,Z)",
        source=Source(
            "Lee, Antonio, Avanzi, Marchi and Zhou 2025", "2509.08163", "the penalised loss"
        ),
        hyperparameters=(Hyperparameter("weight", 1.0, 0.0, 150.0, "lambda"),),
        call=fairness_penalty,
    ),
)

OBJECTIVES: Mapping[str, Objective] = MappingProxyType({entry.name: entry for entry in _OBJECTIVES})
MODIFIERS: Mapping[str, Modifier] = MappingProxyType({entry.name: entry for entry in _MODIFIERS})
