# A beamline host's runtime on the CPU: no PyTorch, no compiler, no root.
#   docker build -t ptycho-runtime .
#   docker run --rm -v "$PWD:/data" ptycho-runtime reconstruct /data/wts.h5.zip /data/scan.npz -o /data/object.h5
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY ptycho_torch ptycho_torch
COPY exporters exporters
COPY ptycho_runtime ptycho_runtime
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
COPY --from=build /wheels /wheels
# The plain wheel serves the CPU and is a tenth of the GPU wheel's size; the two must never be installed together.
RUN pip install --no-cache-dir "numpy>=2.0" "onnxruntime>=1.30" "h5py>=3.11" "pillow>=10" "scipy>=1.13" "tqdm>=4.66" \
    && pip install --no-cache-dir --no-deps /wheels/*.whl && rm -r /wheels \
    && useradd --create-home --uid 1000 beamline
USER beamline
WORKDIR /data
ENTRYPOINT ["ptycho-runtime"]
CMD ["doctor"]
