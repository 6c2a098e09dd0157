"""Whatever happens in whatever order: never two probes at once, and the breaker is never stuck."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from omnibase_infra.shared.core.errors import DependencyUnavailableError, TransientError
from omnibase_infra.shared.resilience.dependency_breaker import BreakerPreset, DependencyBreaker, Permit
from omnibase_infra.shared.testing.manual_clock import ManualClock

PRESET = BreakerPreset(fail_max=3, reset_seconds=1.0, cap_seconds=4.0, jitter=0.5, probe_timeout_seconds=10.0)
DOWN = DependencyUnavailableError("down", dependency="postgres")
DEADLOCK = TransientError("deadlock", dependency="postgres")


class BreakerGate(RuleBasedStateMachine):
    """A model of work that comes, ends in every way, or hangs."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.random = 0.0
        self.breaker = DependencyBreaker("postgres", PRESET, clock=self.clock, uniform=lambda: self.random)
        self.running: list[Permit] = []
        self.probe: Permit | None = None
        self.probe_since = 0.0
        self.failures_in_a_row = 0
        self.changes: list[tuple[str, str]] = []
        self.breaker.on_change(lambda change: self.changes.append((change.old, change.new)))

    @rule()
    def work_asks(self) -> None:
        state, wait = self.breaker.state, self.breaker.seconds_until_probe
        permit = self.breaker.permit()
        if not permit.granted:
            assert state != "closed"
            assert permit.retry_in > 0
            if wait == 0:  # only a probe that is overdue is refused without a wait, and it opens the breaker
                assert self.probe is not None
                assert self.breaker.state == "open"
                self.probe = None
            return
        assert wait == 0
        self.running.append(permit)
        if permit.probe:
            assert self.probe is None, "two probes at once"
            assert self.breaker.state == "half-open"
            self.probe, self.probe_since = permit, self.clock.monotonic()
        else:
            assert state == self.breaker.state == "closed"

    @precondition(lambda self: self.running)
    @rule(data=st.data(), outcome=st.sampled_from(["success", "failure", "deadlock", "cancelled"]))
    def work_ends(self, data: st.DataObject, outcome: str) -> None:
        permit = data.draw(st.sampled_from(self.running))
        self.running.remove(permit)
        before = self.breaker.state
        counts = permit is self.probe or (before == "closed" and permit.generation == self.breaker.permit().generation)
        if outcome == "success":
            self.breaker.record_success(permit)
        elif outcome == "failure":
            self.breaker.record_failure(permit, DOWN)
        elif outcome == "deadlock":
            self.breaker.record_failure(permit, DEADLOCK)
        self.breaker.release(permit)

        if not counts:
            assert self.breaker.state == before
            return
        if before == "closed":
            if outcome == "success":
                self.failures_in_a_row = 0
            elif outcome == "failure":
                self.failures_in_a_row += 1
            assert (self.breaker.state == "open") == (self.failures_in_a_row == PRESET.fail_max)
            if self.breaker.state == "open":
                self.failures_in_a_row = 0
        else:
            expected = {"success": "closed", "failure": "open"}.get(outcome, "half-open")
            assert self.breaker.state == expected
        if permit is self.probe:
            self.probe = None

    # Exact in binary, so that sums and differences of times are, too.
    @rule(seconds=st.sampled_from([0.125, 0.5, 1.0, 4.0, 10.0]), random=st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    def time_passes(self, seconds: float, random: float) -> None:
        before = self.breaker.state
        self.clock.advance(seconds)
        self.random = random
        assert self.breaker.state == before

    @invariant()
    def the_wait_is_bounded(self) -> None:
        assert 0 <= self.breaker.seconds_until_probe <= PRESET.probe_timeout_seconds
        if self.breaker.state == "open":
            assert self.breaker.seconds_until_probe <= PRESET.cap_seconds

    @invariant()
    def a_free_gate_is_open(self) -> None:
        if self.breaker.state == "half-open" and self.probe is None:
            assert self.breaker.seconds_until_probe == 0

    @invariant()
    def changes_follow_the_diagram(self) -> None:
        allowed = {("closed", "open"), ("open", "half-open"), ("half-open", "open"), ("half-open", "closed")}
        assert set(self.changes) <= allowed
        assert all(new == old for (_, new), (old, _) in zip(self.changes, self.changes[1:], strict=False))

    def teardown(self) -> None:
        """The dependency comes back: whatever state it was left in, bounded waiting closes the breaker."""
        for _ in range(3):
            self.clock.advance(self.breaker.seconds_until_probe)
            permit = self.breaker.permit()
            self.breaker.record_success(permit)
        assert self.breaker.state == "closed"


TestBreakerGate = BreakerGate.TestCase
