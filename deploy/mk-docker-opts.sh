#!/bin/sh
# Turns subnet.env into options for dockerd, as upstream's script of this name does.
set -eu

usage() {
    cat >&2 <<'TEXT'
mk-docker-opts.sh [-f FILE] [-d FILE] [-i] [-c] [-m] [-k KEY]
  -f FILE  what flanneld wrote; default /run/flannel/subnet.env
  -d FILE  what to write; default /run/docker_opts.env
  -i       one variable an option: DOCKER_OPT_BIP, DOCKER_OPT_IPMASQ, DOCKER_OPT_MTU
  -c       all options in one variable, KEY
  -m       no --ip-masq
  -k KEY   default DOCKER_OPTS
Without -i and -c: both.
TEXT
    exit 1
}

subnet_env=/run/flannel/subnet.env
docker_env=/run/docker_opts.env
individual='' combined='' masquerade=yes key=DOCKER_OPTS
while getopts f:d:icmk:h option; do
    case $option in
        f) subnet_env=$OPTARG ;;
        d) docker_env=$OPTARG ;;
        i) individual=yes ;;
        c) combined=yes ;;
        m) masquerade='' ;;
        k) key=$OPTARG ;;
        *) usage ;;
    esac
done
[ -n "$individual$combined" ] || individual=yes combined=yes
case $key in '' | *[!A-Za-z0-9_]* | [0-9]*) echo "mk-docker-opts.sh: -k $key is not a variable's name" >&2; exit 1 ;; esac

# Read, not sourced: only the three keys count, whatever else is in the file. `export`, quotes, a comment at the end and
# carriage returns are no part of a value.
value() {
    blank='[[:space:]]'
    found=$(sed -n "s/^$blank*\(export$blank$blank*\)\{0,1\}$1=//p" "$subnet_env" | tail -n 1 | tr -d '\r')
    case $found in
        \"*) found=${found#\"} found=${found%%\"*} ;;
        \'*) found=${found#\'} found=${found%%\'*} ;;
        *) found=$(printf '%s\n' "$found" | sed "s/$blank#.*//; s/$blank*\$//") ;;
    esac
    printf '%s\n' "$found"
}
[ -r "$subnet_env" ] || { echo "mk-docker-opts.sh: cannot read $subnet_env; is flanneld running?" >&2; exit 1; }
subnet=$(value FLANNEL_SUBNET) masq=$(value FLANNEL_IPMASQ) mtu=$(value FLANNEL_MTU)

options='' lines=''
add() { # NAME OPTION
    options="$options $2"
    lines="${lines}DOCKER_OPT_$1=\"$2\"
"
}
[ -z "$subnet" ] || add BIP "--bip=$subnet"
if [ -n "$masquerade" ] && [ -n "$masq" ]; then
    # Whichever masquerades, the other must not.
    case $masq in
        true) add IPMASQ --ip-masq=false ;;
        false) add IPMASQ --ip-masq=true ;;
        *) echo "mk-docker-opts.sh: FLANNEL_IPMASQ=$masq in $subnet_env is neither true nor false" >&2; exit 1 ;;
    esac
fi
[ -z "$mtu" ] || add MTU "--mtu=$mtu"

text() {
    [ -z "$individual" ] || printf '%s' "$lines"
    if [ -n "$combined" ]; then
        eval "before=\${$key:-}"
        # shellcheck disable=SC2154
        printf '%s="%s%s"\n' "$key" "$before" "$options"
    fi
}

# A file is replaced in one step. Anything else, such as /dev/stdout, a link or a file mounted here, is written to.
mine() { [ ! -L "$docker_env" ] && { [ -f "$docker_env" ] || [ ! -e "$docker_env" ]; }; }
directory=$(dirname "$docker_env")
mkdir -p "$directory"
if mine && temporary=$(mktemp "$directory/.docker_opts.XXXXXX" 2>/dev/null); then
    trap 'rm -f "$temporary"' EXIT
    chmod 0644 "$temporary"
    text >"$temporary"
    mv -f "$temporary" "$docker_env" 2>/dev/null || text >"$docker_env"
else
    text >"$docker_env"
fi

# A bridge that another interface already routes to would take its packets nowhere.
if [ -n "$subnet" ] && command -v ip >/dev/null && ip route show "$subnet" 2>/dev/null | grep -q via; then
    echo "Your routing table already contains the subnet: $(ip route show "$subnet")" >&2
    exit 1
fi
