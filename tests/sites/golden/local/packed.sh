#!/bin/bash

umask 077
cd -- /work/study/trials/00007/attempt-1 || exit 1
exec /opt/survey/bin/python -I -S /work/study/lib/1f3a9c/agent.py run \
  /work/study/trials/00007/attempt-1 \
  /work/study/trials/00008/attempt-1 \
  /work/study/trials/00009/attempt-1 \
  /work/study/trials/00010/attempt-1

# The agent starts: python -m train --data '/work/data sets'
