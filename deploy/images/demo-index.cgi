#!/bin/sh
# What the demo answers with: the name of the pod that answers.
printf 'Content-Type: text/plain\r\n\r\n'
printf '%s\n' "$HOSTNAME"
