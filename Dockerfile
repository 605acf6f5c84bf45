# syntax=docker/dockerfile:1
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ make perl pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin foldline && cp target/release/foldline /foldline

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /var/lib/foldline --create-home foldline
COPY --from=build /foldline /usr/local/bin/foldline
COPY LICENSE /usr/share/doc/foldline/LICENSE
# The worker writes nothing but what a SQLite sink or a file source keeps: run it with a read-only root.
USER 10001:10001
WORKDIR /var/lib/foldline
VOLUME /var/lib/foldline
EXPOSE 8083
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD \
    ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8083 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q ' 200 ' <&3"]
ENTRYPOINT ["foldline"]
CMD ["run", "/etc/foldline"]
