# All from one file: `docker build --target greeter .`, `--target gateway` or `--target load`. `docker compose` builds all it needs.
ARG ETCD_IMAGE=quay.io/coreos/etcd:v3.5.30

FROM rust:1.95-slim-bookworm AS build
# etcd-client generates its code from .proto files when it is built.
RUN apt-get update \
    && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The caches outlive the step, so only what changed is built again; what the step is to leave behind it has to copy
# out of them. Cargo compares times, not contents, and the cache may come from another checkout: hence the touch.
RUN --mount=type=cache,id=service-discovery-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=service-discovery-target,target=/src/target \
    find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package service-greeter --package service-gateway --package load \
        --features consul,zookeeper --bins \
    && cp target/release/service-greeter target/release/service-gateway target/release/load /usr/local/bin/

FROM debian:bookworm-slim AS runtime
USER 10001:10001

FROM runtime AS greeter
COPY --from=build /usr/local/bin/service-greeter /usr/local/bin/
ENV LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=3s --timeout=3s --retries=3 CMD ["service-greeter", "healthcheck"]
ENTRYPOINT ["service-greeter"]

FROM runtime AS gateway
COPY --from=build /usr/local/bin/service-gateway /usr/local/bin/
ENV LISTEN=0.0.0.0:8080 ADMIN_LISTEN=0.0.0.0:9090
EXPOSE 8080 9090
HEALTHCHECK --interval=3s --timeout=3s --retries=3 CMD ["service-gateway", "healthcheck"]
ENTRYPOINT ["service-gateway"]

FROM runtime AS load
COPY --from=build /usr/local/bin/load /usr/local/bin/
ENTRYPOINT ["load", "http://gateway:8080/greeter/greet/Ada"]

# etcd without root. A new volume takes its owner from the directory it covers, and the official image has none that
# another user may write; it has no shell to make one either, so an empty directory comes from elsewhere.
FROM ${ETCD_IMAGE} AS etcd
COPY --from=runtime --chown=10001:10001 /srv /data
USER 10001:10001
