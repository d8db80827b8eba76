# The sidecar as an image: infertap in a venv of its own, without a build tool, a shell script or root.
#   docker build -t infertap .
#   docker run --rm -p 8900:8900 -p 8901:8901 -v infertap:/data infertap serve --upstream http://model:8000
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS build
WORKDIR /src
RUN python -m venv /opt/infertap
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY middleware middleware
COPY sidecar sidecar
RUN /opt/infertap/bin/pip install --no-cache-dir --disable-pip-version-check --constraint constraints.txt ".[codings]" \
    && /opt/infertap/bin/pip uninstall --yes --disable-pip-version-check pip

FROM ${PYTHON_IMAGE}
# The only folder that infertap writes to, besides /tmp: the root file system may be read-only.
RUN install --directory --owner=65532 --group=65532 --mode=0700 /data
COPY --from=build /opt/infertap /opt/infertap
ENV PATH=/opt/infertap/bin:${PATH} \
    HOME=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INFERTAP_LISTEN=0.0.0.0:8900 \
    INFERTAP_ADMIN=0.0.0.0:8901
WORKDIR /data
USER 65532:65532
EXPOSE 8900 8901
STOPSIGNAL SIGTERM
ENTRYPOINT ["infertap"]
CMD ["serve"]
