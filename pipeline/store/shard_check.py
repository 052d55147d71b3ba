"""What is wrong with one shard, if anything: its plan file, its base and its supplements.

Reads, and changes nothing. An object exists if it can be read by its name: a list might lag. A
shard that is not committed is missing, which is no damage.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from pipeline.file_names import quoted
from pipeline.store import layout
from pipeline.store.contents import Contents, read_contents
from pipeline.store.evidence.digests import Digests, DigestState, exists
from pipeline.store.objects import Store
from pipeline.store.plans import PlanRow, describe_rollouts, look_at_plan, plan_advice
from pipeline.store.traces import UNREADABLE
from schemas.errors import ObjectMissing
from schemas.runs import Key, RunManifest
from schemas.trace import Status

_KEYS_NAMED = 3  # of many, in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is not as it should be, and what to do about it."""

    shard: int | None  # None: of no shard of the plan
    key: str  # the object
    found: str
    expected: str
    advice: str
    can_repair: bool = False  # by moving the shard's data objects aside and making them again


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardCheck:
    """What a shard holds, key by key, and what is wrong with it."""

    shard: int
    plan: list[PlanRow]  # empty if it cannot be read
    is_committed: bool
    num_supplements: int  # from the first one on, without a gap
    num_planned: int  # rollouts, as all of the following
    num_ok: int
    num_dead: int
    findings: tuple[Finding, ...]
    num_without_digest: int  # objects that nobody took a digest of, if that was asked

    @property
    def num_missing(self) -> int:
        return self.num_planned - self.num_ok - self.num_dead


def check_shard(
    store: Store,
    manifest: RunManifest,
    shard: int,
    *,
    last_listed: int = 0,
    is_deep: bool = False,
    digests: Digests | None = None,
) -> ShardCheck:
    """Hold one shard against the plan. Deep: every page is read, every picture decoded, and objects
    are held against their digests; `digests` are those of the run, for who checks many shards.

    `last_listed` is the highest supplement that a list names, made before this call: one that does
    not follow the others cannot be found by asking for names. Raises StoreUnavailable and
    StoreRefused.
    """
    checker = _Checker(store, manifest, shard, is_deep, digests or Digests(store))
    return checker.check(last_listed)


@dataclass(slots=True, eq=False)
class _Checker:
    """One `check_shard`, and what it has found so far."""

    store: Store
    manifest: RunManifest
    shard: int
    is_deep: bool
    digests: Digests
    findings: list[Finding] = field(default_factory=list)
    num_supplements: int = 0
    num_without_digest: int = 0

    def check(self, last_listed: int) -> ShardCheck:
        plan = self._read_plan()
        planned = {key for row in plan for key in row.rollout_keys()}
        is_committed, base = self._read_base()
        if base and planned not in (set(), base.keys) and self._is_as_committed(base):
            self._blame_plan(f"{_name_keys(planned - base.keys)}, which the shard's base has not")
            plan, planned = [], set()
        ok, dead = set[Key](), set[Key]()
        if base:
            self._check_base(base, planned)
            ok, dead = base.ok, base.dead - base.ok
        for number, supplement in self._read_supplements():
            if base and supplement:
                self._check_supplement(number, supplement, dead)
                ok, dead = ok | (supplement.ok & dead), dead - supplement.ok
        self._check_gap(last_listed, is_committed=is_committed)
        return ShardCheck(
            shard=self.shard,
            plan=plan,
            is_committed=is_committed,
            num_supplements=self.num_supplements,
            num_planned=len(planned) or self.manifest.num_rollouts_of(self.shard),
            num_ok=len(ok & planned) if planned else len(ok),
            num_dead=len(dead & planned) if planned else len(dead),
            findings=tuple(self.findings),
            num_without_digest=self.num_without_digest,
        )

    def _read_plan(self) -> list[PlanRow]:
        plan = look_at_plan(self.store, self.manifest, self.shard, is_deep=self.is_deep)
        if plan.problem:
            self._blame_plan(plan.problem)
        return plan.rows

    def _blame_plan(self, problem: str) -> None:
        self.findings.append(
            Finding(
                shard=self.shard,
                key=layout.plan_key(self.manifest.part_of(self.shard).folder, self.shard),
                found=problem,
                expected=describe_rollouts(self.manifest.num_rollouts_of(self.shard)),
                advice=plan_advice(self.store),
            )
        )

    def _is_as_committed(self, base: Contents) -> bool:
        """Whether a base that has other keys than its plan is the one that a worker wrote, which
        held its keys against the plan. A plan file with a digest is believed, and the base is not.
        """
        if self.manifest.part_of(self.shard).digest_of(self.shard):
            return False
        if base.digest is None:
            key, geometry = self._name(0), self.manifest.geometry
            try:
                base = read_contents(self.store, key, geometry, is_deep=True)
            except (ObjectMissing, *UNREADABLE):
                return False
        is_numbered = (base.footer.shard, base.footer.supplement) == (self.shard, 0)
        is_counted = base.footer.num_rows == self.manifest.num_rollouts_of(self.shard)
        return is_numbered and is_counted and base.digest == base.footer.digest

    def _read_base(self) -> tuple[bool, Contents | None]:
        """Whether there is a base, and what it says if it can be read and is ours."""
        is_there, base = self._try_read(0)
        # Beside a live run, base and supplement may both have come since the base was asked for:
        # so it is asked for again.
        if not is_there and exists(self.store, self._name(1)):
            is_there, base = self._try_read(0)
            if not is_there:
                self._find(1, found="a supplement alone", expected=f"its base, {self._name(0)}")
        return is_there, base

    def _read_supplements(self) -> Iterator[tuple[int, Contents | None]]:
        """The supplements that follow each other, with None for those that cannot be read."""
        for number in count(1):
            is_there, supplement = self._try_read(number)
            if not is_there:
                return
            self.num_supplements = number
            yield number, supplement

    def _try_read(self, supplement: int) -> tuple[bool, Contents | None]:
        """Whether the object is there, and what it says if it can be read and is ours."""
        key, geometry = self._name(supplement), self.manifest.geometry
        try:
            contents = read_contents(self.store, key, geometry, is_deep=self.is_deep)
        except ObjectMissing:
            return False, None
        except UNREADABLE as error:
            self._find(
                supplement,
                found=f"a file that cannot be read ({type(error).__name__}: {error})",
                expected="a whole shard file of coppice",
            )
            return True, None
        return True, contents if self._is_ours(key, contents) else None

    def _is_ours(self, key: str, contents: Contents) -> bool:
        ours, footer = self.manifest, contents.footer
        if (ours.run_id, ours.fingerprint) == (footer.run_id, footer.fingerprint):
            return True
        self.findings.append(
            Finding(
                shard=self.shard,
                key=key,
                found=f"an object of run {footer.run_id} (fingerprint {footer.fingerprint})",
                expected=f"run {ours.run_id} (fingerprint {ours.fingerprint})",
                advice="two runs share a folder: move the object away by hand",
            )
        )
        return False

    def _check_base(self, base: Contents, planned: set[Key]) -> None:
        self._check_object(0, base)
        if not planned:
            return
        if missing := planned - base.keys:
            self._find(0, found=f"no row for {_name_keys(missing)}", expected="every planned key")
        if unplanned := base.keys - planned:
            self._find(0, found=f"rows for {_name_keys(unplanned)}", expected="planned keys only")

    def _check_supplement(self, number: int, supplement: Contents, dead: set[Key]) -> None:
        """`dead`: the keys that are dead in the base and in every supplement before this one."""
        self._check_object(number, supplement)
        in_vain = set(supplement.footer.in_vain)
        if supplement.dead:
            self._find(
                number, found=f"dead: {_name_keys(supplement.dead)}", expected="ok rows only"
            )
        if alive := supplement.ok - dead:
            self._find(
                number,
                found=f"rows for {_name_keys(alive)}",
                expected="keys only that are dead in the base and all supplements before",
            )
        if alive := in_vain - (dead - supplement.ok):
            self._find(
                number,
                found=f"noted as tried in vain: {_name_keys(alive)}",
                expected="keys only that are dead still",
            )

    def _check_object(self, supplement: int, contents: Contents) -> None:
        """What holds for bases and supplements alike."""
        footer, num_of = contents.footer, contents.num_of
        if (footer.shard, footer.supplement) != (self.shard, supplement):
            name = layout.traces_key(footer.shard, footer.supplement)
            self._find(supplement, found=f"the footer of {name}", expected="its own footer")
        if (num_of[Status.OK], num_of[Status.DEAD]) != (footer.num_ok, footer.num_dead):
            self._find(
                supplement,
                found=f"{num_of[Status.OK]} ok and {num_of[Status.DEAD]} dead rows",
                expected=f"{footer.num_ok} ok and {footer.num_dead} dead, as its footer says",
            )
        for problem, keys in contents.problems.items():
            self._find(supplement, found=f"{problem}: {_name_keys(keys)}", expected="no such row")
        if contents.digest not in (None, footer.digest):
            self._find(
                supplement,
                found=f"keys, states and tokens with digest {contents.digest}",
                expected=f"digest {footer.digest}, as its footer says",
            )
        for problem in contents.footer_problems:
            self._find(supplement, found=problem, expected="a footer that says what is there")
        self._check_bytes(supplement, contents)

    def _check_bytes(self, supplement: int, contents: Contents) -> None:
        """All bytes of an object against the digest that was taken when it was written."""
        if contents.object_digest is None:
            return
        match self.digests.state(self._name(supplement), contents.object_digest):
            case DigestState.NONE:
                self.num_without_digest += 1
            case DigestState.OTHER:
                self._find(
                    supplement,
                    found=f"bytes with digest {contents.object_digest}",
                    expected=f"the bytes that were committed, whose digest is in {layout.DIGESTS}/",
                )

    def _check_gap(self, last_listed: int, *, is_committed: bool) -> None:
        """A supplement that is not reached, since one before it is gone."""
        if last_listed <= self.num_supplements:
            return
        if exists(self.store, self._name(last_listed)):
            gone = self._name(self.num_supplements + 1 if is_committed else 0)
            self._find(
                last_listed,
                found="a supplement without what it builds on",
                expected=f"{gone} before it",
            )

    def _find(self, supplement: int, *, found: str, expected: str) -> None:
        url = quoted(self.store.url)
        self.findings.append(
            Finding(
                shard=self.shard,
                key=self._name(supplement),
                found=found,
                expected=expected,
                advice=f"move the shard aside with: coppice repair {url} --shards "
                f"{self.shard}; then make it again with: coppice run {url}",
                can_repair=True,
            )
        )

    def _name(self, supplement: int) -> str:
        return layout.traces_key(self.shard, supplement)


def name_some(names: Sequence[str]) -> str:
    """`one, two, three and 5 more`."""
    named = names[:_KEYS_NAMED]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def _name_keys(keys: Collection[Key]) -> str:
    """`3f2a... rollout 0, 77b1... rollout 2 and 5 more`."""
    return name_some([f"{record} rollout {rollout}" for record, rollout in sorted(keys)])
