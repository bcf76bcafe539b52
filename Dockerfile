# The package on a CPU; the demo by default:
#   docker build -t mimo .
#   docker run --rm -v mimo:/data mimo
# Any other command: docker run --rm -v mimo:/data -p 8081:8081 mimo serve indexes/NAME --host 0.0.0.0
FROM python:3.12-slim

WORKDIR /src
COPY constraints/py312.txt constraints/
# Without the libraries for GPUs, which PyPI's build brings. What it needs comes with the package.
RUN pip install --no-cache-dir --no-deps --constraint constraints/py312.txt torch \
      --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE ./
COPY eval_configs eval_configs
COPY mimo_plugin mimo_plugin
RUN pip install --no-cache-dir --constraint constraints/py312.txt '.[demo]'

RUN useradd --create-home mimo && mkdir /data && chown mimo /data
USER mimo
# Results, and the encoders that are converted once.
WORKDIR /data
ENV XDG_CACHE_HOME=/data/cache
VOLUME /data
ENTRYPOINT ["mimo"]
CMD ["demo"]
