"""The deployments of a project, and the process that serves them: `python -m flows.deployments SETTINGS`."""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, serve
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed

from flows.inbox import onboard_from_inbox, scan_inbox
from flows.pipeline import run_adapted, run_stages
from flows.synthesize import synthesize
from flows.task_runner import STAGES_AT_ONCE, stage_runner
from gensync_core.paths import Project
from tasks import registration
from tasks.inbox import InboxSettings

# Runs beside onboardings: a scan, a training, a synthesis.
_FURTHER_RUNS = 3
_POLL_S = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeSettings:
    """What is to be served.

    Attributes:
        root: the project's folder.
        inbox: a folder or `s3://bucket/prefix`.
        scan_cron: when the inbox is scanned.
        retrain_cron: when the cohort is trained; empty: never.
        at_once: newcomers that are onboarded at the same time.
        patience: of the inbox.
    """

    root: Path
    inbox: str
    scan_cron: str = "*/5 * * * *"
    retrain_cron: str = "0 3 * * 0"
    at_once: int = STAGES_AT_ONCE
    patience: InboxSettings = field(default_factory=InboxSettings)

    @property
    def name(self) -> str:
        """Name of the project's deployments: several projects may share a server."""
        return f"{self.root.name}-{hashlib.sha256(str(self.root).encode()).hexdigest()[:6]}"

    def dumps(self) -> str:
        """As text, for another process."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> "ServeSettings":
        """Read what `dumps` wrote."""
        content = json.loads(text)
        patience = InboxSettings(**content.pop("patience"))
        return cls(root=Path(content.pop("root")), patience=patience, **content)


@flow(name="retrain-cohort", task_runner=stage_runner())
def retrain_cohort(root: Path) -> State[Any]:
    """Train the cohort anew if anything about it changed, and bring everybody's model and report up to date with it.

    Raises:
        CommandFailed: the first stage that failed.
    """
    project = Project(root)
    if not project.registry().ids("cohort"):
        return Completed(message="nobody is in the cohort yet")
    results = [*run_stages(project, registration.cohort_targets(project)), *run_adapted(project)]
    return Completed(message=f"{len(results)} stage{'s' * (len(results) != 1)} run" if results else "everything is up to date")


def deployments_of(settings: ServeSettings) -> list[RunnerDeployment]:
    """The inbox scan, the onboarding that it starts, the training of the cohort, and synthesis."""
    root = str(settings.root)
    inbox = {"root": root, "inbox": settings.inbox, "settings": asdict(settings.patience)}
    scan = inbox | {"onboard_deployment": f"{onboard_from_inbox.name}/{settings.name}", "key": settings.name}
    every: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
        (scan_inbox, scan, {"cron": settings.scan_cron}),
        (onboard_from_inbox, inbox, {"concurrency_limit": settings.at_once}),
        (retrain_cohort, {"root": root}, {"cron": settings.retrain_cron or None}),
        (synthesize, {"root": root}, {}),
    ]
    return [
        flow.to_deployment(
            settings.name, parameters=parameters, entrypoint_type=EntrypointType.MODULE_PATH, tags=["gensync"], **options
        )
        for flow, parameters, options in every
    ]


def clean_up(deployments: list[RunnerDeployment]) -> None:
    """Settle what an earlier process that served this project left behind.

    One process serves a project, so whatever is running when it starts has lost its process and is ended; attempts with
    files of the inbox are made again by the next scan. Scans that were missed are dropped: the next one sees as much.
    A training that was missed is made up for.
    """
    with get_client(sync_client=True) as client:
        ids = {}
        for deployment in deployments:
            try:
                ids[deployment.flow_name] = client.read_deployment_by_name(f"{deployment.flow_name}/{deployment.name}").id
            except ObjectNotFound:
                continue
        if not ids:
            return
        for run in _runs(client, list(ids.values()), [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]):
            client.set_flow_run_state(run.id, Crashed(message="the process that served it is gone"), force=True)
        for run in _runs(client, [ids[scan_inbox.name]] if scan_inbox.name in ids else [], [StateType.SCHEDULED]):
            if run.auto_scheduled and run.expected_start_time and run.expected_start_time < datetime.now(UTC):
                client.delete_flow_run(run.id)


def _runs(client: SyncPrefectClient, deployments: list[UUID], states: list[StateType]) -> list[FlowRun]:
    if not deployments:
        return []
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=deployments)),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
    )


def main(text: str) -> None:
    """Serve until told to stop."""
    settings = ServeSettings.loads(text)
    deployments = deployments_of(settings)
    clean_up(deployments)
    serve(
        *deployments,
        limit=settings.at_once + _FURTHER_RUNS,
        query_seconds=_POLL_S,
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    main(sys.argv[1])
