"""tutelage.yaml: one class a section, every default and unit, all errors at once.

Reading and line numbers live in config_file.py; this module only says what is allowed.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tutelage.core.config_alerts import Alerts, Telemetry
from tutelage.core.config_base import Ratio, Section, yaml_word
from tutelage.core.config_base import Task as Task
from tutelage.core.config_deploy import Deploy as Deploy
from tutelage.core.config_deploy import Endpoint as Endpoint
from tutelage.core.config_deploy import Limits as Limits
from tutelage.core.config_drift import Drift
from tutelage.core.config_evaluate import Evaluate
from tutelage.core.config_evaluate import Guards as Guards
from tutelage.core.config_feedback import Feedback
from tutelage.core.config_improve import Improve
from tutelage.core.config_live import LiveEvaluation
from tutelage.core.config_prices import Prices
from tutelage.core.config_usage import UsageBudget
from tutelage.core.config_web import Web
from tutelage.core.output import OutputFormat


class Columns(Section):
    """Which columns of a table, or fields of a JSON row, hold what. Unset: detected."""

    input: str | None = None  # what the model is asked
    output: str | None = None  # the answer, or the label
    group: str | None = None  # patient, customer, document: kept on one side of the split
    time: str | None = None  # when the row was made, ISO 8601


class Splits(Section):
    """Shares of the three splits (they sum to 1), and what must never straddle them."""

    train: Ratio = 0.7  # share that is trained on
    validation: Ratio = 0.15  # share that says when to stop
    test: Ratio = 0.15  # share that only the verdict looks at
    group: str | None = None  # field of a row (patient, customer) that stays on one side
    time: str | None = None  # field of a row: the newest rows go to test
    semantic: str | None = None  # embedder that counts twins by meaning too, such as minilm

    @model_validator(mode="after")
    def _sums_to_one(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, validation and test must sum to 1, not {total:g}")
        return self


class Dedup(Section):
    """Rows that say the same. Near: the same but for typos, the order of words, a small word."""

    near: Literal["keep", "drop"] = "keep"  # keep: together on one side; drop: one a label stays
    threshold: float = Field(default=80.0, ge=50, le=100)  # percent of letters that agree in near
    # cosine from which rows are shown as similar; unset: 0.85, or 0.80 with tf-idf
    semantic: Ratio | None = None
    across_labels: Literal["keep", "drop"] = "keep"  # rows with one input and different answers

    @field_validator("near", mode="before")
    @classmethod
    def _was_boolean(cls, value: object) -> object:
        """Read the true and false of earlier versions, where near-duplicates always stayed."""
        return "keep" if isinstance(value, bool) else value


class Privacy(Section):
    """Personal and health identifiers: what happens to them before a row is kept."""

    mode: Literal["off", "flag", "redact"] = "flag"  # redact: replaced by pseudonyms
    kinds: list[str] | None = None  # unset: all 18 of HIPAA Safe Harbor
    key: str | None = None  # file of the pseudonyms' key, outside the project; unset: made for you
    dates: Literal["year", "shift"] = "year"  # shift: moved by days that are fixed for a group
    detector: str = "rules"  # a plug-in of tutelage.detectors

    _words = field_validator("mode", mode="before")(yaml_word)


class HostedDeployment(Section):
    """Where Azure serves a tuned model: it can't be called before it is deployed."""

    subscription: str  # id of the subscription
    resource_group: str  # that holds the Azure OpenAI resource
    account: str  # name of the Azure OpenAI resource
    name: str | None = None  # of the deployment, by which it is called; unset: the project's
    bearer_env: str = "AZURE_TOKEN"  # name of the variable with a token of the management API
    sku: str = "Standard"  # kind of capacity
    capacity: int = Field(default=1, ge=1)  # thousands of tokens a minute
    api_version: str = "2024-10-01"  # of the management API
    management_url: str = "https://management.azure.com"  # other in sovereign clouds


class Hosted(Section):
    """Fine-tuning at a service that speaks OpenAI's jobs API. Rows leave the house."""

    kind: str = "openai"  # openai, azure, or a plug-in of tutelage.hosted
    base_url: str = "https://api.openai.com/v1"  # azure: https://NAME.openai.azure.com
    model: str  # the base model's name there
    api_key_env: str | None = "OPENAI_API_KEY"  # name of the variable that holds the key
    api_version: str | None = None  # azure's; unset: 2024-10-21
    # where the hyperparameters stand in the request; auto: as the service documents it
    shape: Literal["auto", "method", "hyperparameters"] = "auto"
    epochs: int | None = Field(default=None, ge=1)  # passes over the rows; unset: theirs to choose
    batch_size: int | None = Field(default=None, ge=1)  # rows a step; unset: theirs to choose
    learning_rate_multiplier: float | None = Field(default=None, gt=0)  # unset: theirs to choose
    # ends the tuned model's name; unset: the project's name
    suffix: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$", max_length=64)
    price_per_million_tokens: float | None = Field(default=None, ge=0)  # of training; for estimates
    upload: bool = False  # true: rows are uploaded without --yes
    identifiers: Literal["stop", "allow"] = "stop"  # allow: rows with identifiers are uploaded too
    # how often the tuned model is called so that it is not deleted as idle, such as 7d
    keep_alive: str | None = Field(default=None, pattern=r"^[1-9]\d*[hdw]$")
    deployment: HostedDeployment | None = None  # azure: deploys the tuned model when it is done


class Quality(Section):
    """What is looked for in good rows: strangers, doubtful labels, the best ones."""

    embedder: str = "auto"  # tfidf, minilm, openai, a plug-in, or a folder with an encoder
    endpoint: Endpoint | None = None  # the server of the embedder openai
    outliers: bool = True  # rows unlike the others are flagged
    label_errors: bool = True  # labels that the other rows contradict are flagged
    best: int | None = Field(default=None, ge=10)  # train on the best this many rows only


class DataSection(Section):
    """Where rows come from and how they are cleaned and split."""

    sources: list[str] = ["data/*"]  # file patterns, relative to the project
    columns: Columns = Columns()
    splits: Splits = Splits()
    dedup: Dedup = Dedup()
    privacy: Privacy = Privacy()
    quality: Quality = Quality()
    benchmarks: list[str] = []  # files of test texts that no training row may resemble
    # what answers are tidied as, without changing their meaning; auto: by task
    answers: Literal["auto", "text", "json", "sql", "code"] = "auto"
    refusal_share: Ratio = 0.05  # share of refusing answers from which on it is flagged
    language: str | None = None  # ISO 639-1; rows in another language are flagged
    max_tokens: int | None = None  # rows longer than this are quarantined


class Output(Section):
    """The shape of an answer. `field`: JSON with one text field. `labels`: the closed list."""

    field: str | None = None  # the answer is JSON with this one text field
    labels: list[str] | None = None  # the only labels there are
    json_schema: dict[str, Any] | None = None  # what the JSON of an answer must meet

    def format(self) -> OutputFormat:
        """Return the renderer and parser of answers."""
        return OutputFormat(self.field, tuple(self.labels or ()))


class Pattern(Section):
    """One way to put a row so that its label is the words that follow."""

    ask: str = "{text}"  # the row's last turn; {text} stands for what it says
    # what is answered; {label} stands for the label's words; unset: the project's own answer
    answer: str | None = None

    @model_validator(mode="after")
    def _has_its_places(self) -> Pattern:
        for name, text, place in (("ask", self.ask, "{text}"), ("answer", self.answer, "{label}")):
            if text is not None and text.count(place) != 1:
                raise ValueError(f"{name} must hold {place} once, not {text.count(place)} times")
        return self


class Cloze(Section):
    """How the method cloze asks and what stands for a label."""

    patterns: list[Pattern] = []  # empty: two, made from the answer's field
    # label: the words that stand for it; a label that is not named stands for itself
    verbalisers: dict[str, list[str]] = {}
    # divide by the chances without any text; auto: where that fits the validation rows better
    calibrate: Literal["auto", "always", "never"] = "auto"


class Train(Section):
    """What to train and how. Everything unset is planned; any field here overrides the plan."""

    method: str = "auto"  # auto | lora | ... (a plug-in of tutelage.methods)
    # what methods change that may train either: lora, dora, qlora, full, or a PEFT adapter
    tune: str | None = None
    rank: int | None = Field(default=None, ge=1)  # size of the adapter
    alpha: float | None = Field(default=None, gt=0)  # the adapter is scaled by alpha / rank
    dropout: Ratio | None = None  # share of the adapter's inputs that a step leaves out
    # layers that get an adapter, or that full tuning trains; unset: all
    target_modules: str | list[str] | None = None
    peft: dict[str, Any] | None = None  # more fields of PEFT's configuration, such as use_rslora
    lora_plus: float | None = Field(default=None, ge=1)  # LoRA+: the rate of B over that of A
    # full tuning: chance that a column of weights is the base model's in a step (Mixout)
    mixout: float | None = Field(default=None, ge=0, lt=1)
    # full tuning: a layer's learning rate over that of the layer above it
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    learning_rate: float | None = Field(default=None, gt=0)  # at its highest
    epochs: float | None = Field(default=None, gt=0)  # passes over the train split, at most
    batch_size: int | None = Field(default=None, ge=1)  # rows an optimizer step
    micro_batch: int | None = Field(default=None, ge=1)  # rows a forward pass
    max_tokens: int | None = Field(default=None, ge=16)  # tokens a row
    warmup: Ratio | None = None  # share of all steps over which the rate rises
    weight_decay: float | None = Field(default=None, ge=0)  # AdamW's
    prompt_loss_weight: Ratio | None = None  # loss on the prompt's tokens; the answer's count 1
    patience: int | None = Field(default=None, ge=1)  # evaluations without gain before stopping
    # in the end, back towards the base as far as validation loses nothing for certain
    interpolate: bool | None = None
    # what is multiplied in; fp16 is for GPUs without bf16
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    shared_prefix: bool | None = None  # compute what rows of a step share only once
    checkpointing: bool | None = None  # less memory for 20 to 30 % more time
    # the kernel of passes without shared prefixes; flash and flex need a CUDA GPU
    attention: Literal["auto", "sdpa", "flash_attention_2", "flex_attention"] | None = None
    # how several processes share the work; none: one process
    strategy: Literal["none", "ddp", "zero2", "zero3", "fsdp2"] | None = None
    offload: bool | None = None  # zero2, zero3, fsdp2: keep the optimizer off the GPU
    processes: int | None = Field(default=None, ge=1)  # unset: one a GPU where they share, else one
    launcher: Literal["torchrun", "ray"] = "torchrun"  # ray: over the machines of its cluster
    # share of general text among the rows, against forgetting
    replay: float | None = Field(default=None, ge=0, lt=1)
    # what a replayed row teaches: its text, or the base model's odds of every next word
    replay_loss: Literal["text", "base"] | None = None
    replay_from: str = "own"  # own: what the base model writes by itself; else a file of text
    before: list[Stage] = []  # stages that are trained first, in this order
    # classify, cloze: balanced gives each label the same weight in the loss, however rare
    class_weights: Literal["none", "balanced"] | None = None
    cloze: Cloze | None = None  # the patterns and words of the method cloze
    beta: float | None = Field(default=None, gt=0)  # dpo, kto: how strongly held to the base
    preference_loss: Literal["sigmoid", "ipo"] | None = None  # dpo: its own loss, or IPO's
    # dpo: chance that a choice is the wrong way round (cDPO)
    label_smoothing: float | None = Field(default=None, ge=0, lt=0.5)
    sft_weight: float | None = Field(default=None, ge=0)  # dpo: of the loss of the better answer
    desirable_weight: float | None = Field(default=None, gt=0)  # kto: of praised answers
    undesirable_weight: float | None = Field(default=None, gt=0)  # kto: of blamed answers
    checkpoint_every: int | None = Field(default=None, ge=1)  # optimizer steps
    hour_price: float | None = Field(default=None, ge=0)  # what an hour of this machine costs
    seed: int = 7  # of everything that is drawn
    force: bool = False  # train although the planner refuses
    # where the numbers go: mlflow, wandb, tensorboard, trackio, none, or a list of them
    tracker: str | list[str] = "mlflow"


class Stage(Train):
    """A stage before the project's own training. Takes every key of `train` but `before` too."""

    sources: list[str] = Field(min_length=1)  # file patterns, relative to the project
    task: Task | None = None  # unset: text for cpt, else the project's
    prompt: str | None = None  # unset: the project's
    output: Output | None = None  # unset: the project's
    columns: Columns = Columns()
    validation: Ratio = 0.1  # share of the stage's rows that says when to stop

    @model_validator(mode="after")
    def _is_flat(self) -> Stage:
        if self.before:
            raise ValueError("a stage has no stages before it: list them all under train.before")
        return self


Train.model_rebuild()


class Augment(Section):
    """Training rows that a teacher writes: they never reach validation or test."""

    ratio: float = Field(default=1.0, gt=0, le=10)  # augmented rows a training row, at most
    per_row: int = Field(default=2, ge=1)  # augmented rows of one parent, at most
    judge: float = Field(default=0.0, ge=0, le=1)  # least score of the judge; 0: no judge
    tokens: int = Field(default=200_000, ge=1)  # of the teacher and judge, in one run
    temperature: float = Field(default=0.9, ge=0, le=2)  # of the teacher


class Project(Section):
    """The whole of tutelage.yaml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=63)  # also the deployment's
    task: Task = "generation"  # decides the metrics and what is checked
    model: str  # hub id, folder, .gguf file, or "demo"
    prompt: str = ""  # what the model is told before every row, until `prompt publish` has another
    output: Output = Output()
    data: DataSection = DataSection()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    prices: Prices = Prices()  # for the cost of answers in evaluations
    augment: Augment = Augment()
    teacher: Endpoint | None = None  # writes drafts and augmented rows
    hosted: Hosted | None = None  # fine-tuning at a service, with train.method hosted
    judge: list[Endpoint] = []  # marks answers; one server, or a list of them: a panel
    deploy: Deploy = Deploy()
    budgets: list[UsageBudget] = []  # what requests may use in a period, and whose
    alerts: Alerts = Alerts()
    telemetry: Telemetry = Telemetry()
    live_evaluation: LiveEvaluation | None = None  # set: served answers are scored
    drift: Drift = Drift()
    feedback: Feedback = Feedback()
    improve: Improve = Improve()
    web: Web = Web()  # the page where experts teach and operators watch

    @field_validator("judge", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return [value] if isinstance(value, (dict, Endpoint)) else value

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> Project:
        hour = self.prices.hour if self.prices.hour is not None else self.train.hour_price
        in_money = any(budget.cost is not None for budget in self.budgets)
        if in_money and not self.prices.tokens and hour is None:
            raise ValueError("budgets limit the cost, and prices has neither tokens nor hour")
        return self

    @property
    def primary_metric(self) -> str:
        """The metric that decides, with `auto` resolved by task."""
        if self.evaluate.primary != "auto":
            return self.evaluate.primary
        return {
            "classification": "accuracy", "extraction": "field_f1", "qa": "token_f1",
            "summarization": "chrf", "code": "exact_match", "generation": "chrf",
            "text": "perplexity",
        }[self.task]  # fmt: skip
