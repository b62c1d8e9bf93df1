# A beamline host's runtime on the CPU: no PyTorch, no compiler, no root.
#   docker build -t ptycho-runtime .
#   docker run --rm --network none -v "$PWD:/data" --user "$(id -u):$(id -g)" ptycho-runtime reconstruct /data/wts.h5.zip /data/scan.npz -o /data/object.h5
# The base is pinned by its digest, which names its content; the tag beside it is for people. For another one:
#   docker buildx imagetools inspect python:3.12.8-slim-bookworm --format '{{.Manifest.Digest}}'
# deploy/image-steps runs the same steps where no image can be built.
FROM python:3.12.8-slim-bookworm@sha256:2199a62885a12290dc9c5be3ca0681d367576ab7bf037da120e564723292a2f0 AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY ptycho_torch ptycho_torch
COPY exporters exporters
COPY ptycho_runtime ptycho_runtime
# The plain wheel serves the CPU and is a tenth of the GPU wheel's size; the two must never be installed together. So this wheel
# asks for the plain one.
RUN sed -i 's/onnxruntime-gpu/onnxruntime/g' pyproject.toml \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12.8-slim-bookworm@sha256:2199a62885a12290dc9c5be3ca0681d367576ab7bf037da120e564723292a2f0
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
RUN sed 's/^onnxruntime-gpu/onnxruntime/' /tmp/constraints.txt > /tmp/cpu.txt \
    && pip install --no-cache-dir --constraint /tmp/cpu.txt /wheels/*.whl \
    && pip check && rm -r /wheels /tmp/*.txt
# Any user may run it, one without an entry in /etc/passwd too.
ENV HOME=/tmp XDG_CACHE_HOME=/tmp/cache ORT_DISABLE_TELEMETRY=1
USER 1000:1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=60s CMD ["ptycho-runtime", "doctor"]
ENTRYPOINT ["ptycho-runtime"]
CMD ["doctor"]
