# One image for everything: `serve` (with nginx inside), `serve --read-only`, `admin`, `work`, `edge`; docs/deploy.md has each of them.
#
#   docker build -t imgproxy .
#   docker run -p 8080:8080 -v imgproxy:/var/lib/imgproxy imgproxy
#
# What builds us and what we need comes by the locks, with hashes. Behind a package index or a proxy of your own, two secrets
# help, and leave nothing in the image: --secret id=pip_conf,src=pip.conf --secret id=ca_bundle,src=ca.pem (then pip.conf says
# `cert = /run/secrets/ca_bundle`).

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf --mount=type=secret,id=ca_bundle,target=/run/secrets/ca_bundle \
    pip install --require-hashes --only-binary=:all: -r requirements-build.lock \
 && pip wheel --require-hashes --no-build-isolation --only-binary=:all: --no-binary=pyvips -w /wheels -r requirements.lock
RUN python -m venv --without-pip /opt/imgproxy \
 && pip --python /opt/imgproxy/bin/python install --no-index --no-deps /wheels/*.whl
COPY LICENSE README.md pyproject.toml ./
COPY conf/gunicorn.conf.py conf/imgproxy.toml conf/nginx.conf conf/varnish.vcl conf/
COPY imgproxy imgproxy
RUN pip wheel --no-index --no-deps --no-build-isolation -w /ours . \
 && pip --python /opt/imgproxy/bin/python install --no-index --no-deps /ours/*.whl

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="imgproxy" \
      org.opencontainers.image.description="An image repository whose read side is nothing but names" \
      org.opencontainers.image.licenses="MIT"
# The base image has the standard library without its bytecode: each process would compile it anew, and may not keep what it compiled.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libjemalloc2 nginx \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/www/html \
 && groupadd --gid 10001 imgproxy \
 && useradd --uid 10001 --gid imgproxy --no-create-home --home-dir /var/lib/imgproxy --shell /usr/sbin/nologin imgproxy \
 && install -d -o imgproxy -g imgproxy -m 0750 /var/lib/imgproxy /run/imgproxy \
 && python -m compileall -q -x '/(ensurepip|idlelib|lib2to3|pydoc_data|site-packages|test|tests|tkinter|turtledemo)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /opt/imgproxy /opt/imgproxy
ENV PATH=/opt/imgproxy/bin:$PATH \
    IMG_DATA=/var/lib/imgproxy \
    IMG_BIND=0.0.0.0:8080
USER 10001:10001
WORKDIR /var/lib/imgproxy
# All that is ever written, so that the root may be read-only, and nothing is written through the layers of the image. With a
# store on the network it is a cache, and an anonymous volume is the right place for it; with fs:// name the volume, and keep it.
VOLUME /var/lib/imgproxy
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 CMD ["imgproxy", "health"]
ENTRYPOINT ["imgproxy"]
CMD ["serve", "--edge"]
