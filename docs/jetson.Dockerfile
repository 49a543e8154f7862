# mma-edge in a container on a Jetson. Unproven: no board has built or run this file; docs/jetson.md says how it is meant.
#
#   docker build -f docs/jetson.Dockerfile -t mma-edge .                                       JetPack 6.1, 6.2
#   docker build -f docs/jetson.Dockerfile -t mma-edge --build-arg CUDA_BINDINGS="~=13.0" \
#       --build-arg BASE=nvcr.io/nvidia/tensorrt:25.08-py3 .                                   JetPack 7 on Thor
#
# The base brings CUDA and TensorRT with its Python package; the driver comes from the board. JetPack 6: NVIDIA's
# l4t-jetpack. JetPack 7 follows the Arm server standard (SBSA) and takes NVIDIA's general arm64 TensorRT container.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE}
# As the CUDA major version of the base.
ARG CUDA_BINDINGS="~=12.8"

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv libportaudio2 \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/mma-edge
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY mma_edge mma_edge
COPY trainer trainer
COPY export export
COPY benchmarks benchmarks
# The environment has to see the base's TensorRT.
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt ".[cpu,live,bench]" "cuda-bindings${CUDA_BINDINGS}"
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /home
ENTRYPOINT ["mma-edge"]
CMD ["doctor"]
