# The worker of gensync cloud: everything that stages need, installed; the project's own code comes with each job.
#   CPU:  docker build -t gensync .
#   CUDA: docker build -t gensync-cuda --build-arg BASE=nvidia/cuda:12.8.1-cudnn-devel-ubuntu24.04 \
#           --build-arg TORCH_INDEX=<package index with CUDA builds of torch> .
# For a small CPU image give TORCH_INDEX an index with CPU builds; without it PyPI's build is taken, which brings CUDA along.
# The CUDA base carries a compiler (devel) because gsplat builds its kernels for the GPU that it finds.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=""
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VIRTUAL_ENV=/opt/gensync/venv \
    PATH=/opt/gensync/venv/bin:$PATH

# The CUDA base has no Python of its own: Ubuntu's (3.12) serves.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libgomp1 libsndfile1 \
    && if ! command -v python3.11 >/dev/null; then \
         apt-get install --yes --no-install-recommends python3 python3-venv python3-dev build-essential; \
       fi \
    && rm -rf /var/lib/apt/lists/* \
    && "$(command -v python3.11 || command -v python3)" -m venv "$VIRTUAL_ENV" \
    && python -m pip install uv

WORKDIR /opt/gensync/source
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY gensync_core ./gensync_core
COPY tasks ./tasks
COPY flows ./flows
RUN if [ -n "$TORCH_INDEX" ]; then python -m pip install --no-deps --index-url "$TORCH_INDEX" "$TORCH"; fi \
    && uv pip install --no-cache -c constraints.txt '.[cloud]' \
    && rm -rf /opt/gensync/source/build

# Workers run as nobody in particular, in folders below /srv/jobs; pretrained parts are cached in the home folder.
RUN useradd --create-home --uid 10001 gensync && mkdir /srv/jobs && chown gensync:gensync /srv/jobs
USER gensync
WORKDIR /srv/jobs
ENV GENSYNC_WORK=/srv/jobs \
    HF_HUB_OFFLINE=1 \
    DVC_NO_ANALYTICS=1 \
    DO_NOT_TRACK=1
RUN python -m gensync_core compile

STOPSIGNAL SIGTERM
CMD ["python", "-m", "tasks.cloud_worker"]
