# Private servers, for tests and for trying things out: on loopback only, as any user, with all their files in a
# directory. Sourced by infra/servers, infra/cluster and infra/test; by itself it starts nothing.
#
# A server is a directory with an executable `run`, which is the server in the foreground, and `ready`, the port it listens
# on when it is up. While it runs there are also `pid` and `log`; `ctl`, if it has one, administers it.
# shellcheck shell=bash

deploy="$(cd "$(dirname "${BASH_SOURCE[0]}")/deploy" && pwd)"

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs the Debian package $2 when the command $1 is missing.
need() { PATH="$PATH:/usr/sbin" command -v "$1" >/dev/null || install_package "$2" "for $1"; }

# Needs Redis and RabbitMQ.
need_servers() {
    need redis-server redis-server
    need rabbitmq-server rabbitmq-server
}

install_package() {
    echo "installing $1 ($2)" >&2
    as_root flock /run/fanfare-install.lock bash -euc "$(declare -f install_quietly); install_quietly $1"
}

# Runs as root, one at a time. Services that come with the package, or with what it needs, are neither started nor enabled,
# and those that run are not restarted.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        # shellcheck disable=SC2064
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    enabled() { systemctl list-unit-files --state=enabled --no-legend 2>/dev/null | cut -d ' ' -f 1 | sort; }
    local before
    before="$(enabled)"
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    [ -n "$(find /var/lib/apt/lists -name '*Packages*' -mmin -60 2>/dev/null | head -n 1)" ] || apt-get update -qq
    apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=300 "$1" >/dev/null
    comm -13 <(echo "$before") <(enabled) | xargs -r systemctl disable --quiet
}

# Where RabbitMQ's own scripts are. Debian's wrappers around them insist on the system's user and directories.
rabbitmq_scripts() { printf '%s\n' "${RABBITMQ_HOME:-/usr/lib/rabbitmq/lib/rabbitmq_server-}"*/sbin | sort -V | tail -n 1; }

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Ports from this one on that may be asked for together.
PORTS=40

# Prints the first of PORTS free ports in a row. Below 32768 no outgoing connection takes one by chance, and scripts that
# start at the same time differ in their process ids.
free_ports() {
    local try first port
    for try in {0..99}; do
        first=$((10240 + PORTS * (($$ + 131 * try) % 563)))
        for ((port = first; port < first + PORTS; port++)); do
            if listening "$port"; then continue 2; fi
        done
        echo "$first"
        return
    done
    echo "no $PORTS free ports in a row" >&2
    return 1
}

# Makes the server $1, listening on port $2, that is the command on standard input.
server() {
    mkdir -p "$1"
    echo "$2" >"$1/ready"
    { printf '#!/bin/sh\n'; cat; } >"$1/run"
    chmod 755 "$1/run"
}

# Says whether the server runs. A number alone is no proof, it may be another's by now: the directory must be right too.
running() {
    local pid
    pid="$(cat "$1/pid" 2>/dev/null)" && [ "$(readlink "/proc/$pid/cwd")" = "$(realpath "$1")" ]
}

# Starts the server, without waiting. It keeps none of the caller's terminal and descriptors: a lock that the caller holds
# would be held for as long as the server lives.
launch() {
    running "$1" && return
    (
        cd "$1" || exit
        (
            for fd in "/proc/$BASHPID/fd"/*; do
                fd="${fd##*/}"
                [ "$fd" -le 2 ] || eval "exec $fd>&-"
            done
            exec setsid ./run </dev/null >>log 2>&1
        ) &
        echo $! >pid
    )
}

# Waits until the servers listen: a minute, for machines that are busy.
await() {
    local server try
    for server; do
        for try in {1..600}; do
            if listening "$(cat "$server/ready")"; then continue 2; fi
            running "$server" || break
            sleep 0.1
        done
        echo "${server##*/} does not start; the end of $server/log:" >&2
        tail -n 5 "$server/log" >&2
        return 1
    done
}

# Starts these servers in $dir together and waits for all of them.
launched() {
    local name
    for name; do launch "$dir/$name"; done
    for name; do await "$dir/$name"; done
}

# Sends signal $1 to a server if it runs.
send() { if running "$2"; then kill "-$1" "$(cat "$2/pid")" 2>/dev/null || true; fi; }

# Ends servers, all at the same time: asks them to, and after 20 s does not ask. One that is suspended can be asked too.
end() {
    local server try
    for server; do send TERM "$server" && send CONT "$server"; done
    for server; do
        for try in {1..200}; do
            running "$server" || break
            sleep 0.1
        done
        [ "$try" -lt 200 ] || send KILL "$server"
        rm -f "$server/pid"
    done
}

# Makes a Redis in $1 on port $2, configured as in the file $3 of deploy/redis and then by standard input. The file is
# Redis' own: a failover rewrites it.
redis() {
    mkdir -p "$1"
    { printf 'include "%s/redis/%s"\nbind 127.0.0.1\nport %s\ndir "%s"\n' "$deploy" "$3" "$2" "$1"; cat; } >"$1/redis.conf"
    server "$1" "$2" <<<"exec redis-server '$1/redis.conf'"
    ctl_of_redis "$1" "$2"
}

ctl_of_redis() {
    printf '#!/bin/sh\nexec redis-cli -p %s "$@"\n' "$2" >"$1/ctl"
    chmod 755 "$1/ctl"
}

# Makes the port mapper of RabbitMQ's nodes, in $1 on port $2: a private one, so that the system's sees nothing of them.
epmd() { server "$1" "$2" <<<"exec epmd -address 127.0.0.1 -port $2"; }

# Makes the RabbitMQ node $1 with AMQP on port $2 and the traffic between nodes on $3, by the port mapper on $4; configured
# as in deploy/rabbitmq and then by standard input. Nodes in the same directory can form a cluster.
rabbitmq() {
    local base="${1%/*}"
    mkdir -p "$1"
    if [ ! -e "$base/.erlang.cookie" ]; then
        (umask 377 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$base/.erlang.cookie")
    fi
    : >"$1/nothing"
    echo '[].' | tee "$1/plugins" >"$1/advanced.config"
    {
        # Test machines have little disk to spare, and little to lose. Of two limits the relative one would count.
        grep -v '^disk_free_limit\.' "$deploy/rabbitmq/rabbitmq.conf"
        printf 'listeners.tcp.1 = 127.0.0.1:%s\ndisk_free_limit.absolute = 100MB\n' "$2"
        cat
    } >"$1/rabbitmq.conf"
    # A variable of RabbitMQ in the caller's environment must not lead this node to another's files.
    cat >"$1/ctl" <<END
#!/bin/sh
exec env -i PATH="$PATH" LC_ALL=C.UTF-8 HOME="$base" \\
    ERL_EPMD_ADDRESS=127.0.0.1 ERL_EPMD_PORT=$4 RABBITMQ_DIST_PORT=$3 \\
    RABBITMQ_NODENAME="${1##*/}@localhost" \\
    RABBITMQ_MNESIA_BASE="$1/data" RABBITMQ_LOG_BASE="$1/logs" RABBITMQ_GENERATED_CONFIG_DIR="$1/generated" \\
    RABBITMQ_CONFIG_FILE="$1/rabbitmq" RABBITMQ_CONFIG_FILES="$1/conf.d" \\
    RABBITMQ_ADVANCED_CONFIG_FILE="$1/advanced.config" RABBITMQ_CONF_ENV_FILE="$1/nothing" \\
    RABBITMQ_ENABLED_PLUGINS_FILE="$1/plugins" RABBITMQ_PID_FILE="$1/beam.pid" \\
    RABBITMQ_ALLOW_INPUT=1 \\
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-noinput -kernel inet_dist_use_interface {127,0,0,1}" \\
    RABBITMQ_CTL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}" \\
    "$(rabbitmq_scripts)/\${PROGRAM:-rabbitmqctl}" "\$@"
END
    chmod 755 "$1/ctl"
    server "$1" "$2" <<<'PROGRAM=rabbitmq-server exec ./ctl'
}

# Gives a running RabbitMQ our policies.
import_policies() { "$1/ctl" --quiet import_definitions "$deploy/rabbitmq/definitions.json" >/dev/null; }
