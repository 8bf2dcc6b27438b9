#!/bin/sh
# Makes one machine a node of the cluster. Safe to run again: a member stays a
# member and gets the newest binary; a step that is done changes nothing.
#
# The environment comes from the Vagrantfile: NODE_NAME, NODE_ROLE,
# NODE_ADDRESS, NODE_ATTRIBUTES ("k=v k=v"), FIRST_MASTER (address), HOSTS
# (lines for /etc/hosts), INIT_FLAGS (for the first master). SHARED (default /vagrant) holds bin/appliance and
# carries the join tokens from the first master to the others.
set -eu

SHARED=${SHARED:-/vagrant}
JOIN=$SHARED/.vagrant-join
APPLIANCE=/usr/local/bin/appliance
DATA=/var/lib/appliance
WAIT=${WAIT:-120} # seconds to wait for the first master's token

say() { echo "provision: $*"; }
die() { echo "provision: $*" >&2; exit 1; }

for name in NODE_NAME NODE_ROLE NODE_ADDRESS FIRST_MASTER; do
	eval "value=\${$name:-}"
	[ -n "$value" ] || die "$name is not set: run this through 'vagrant provision'"
done
[ "$(id -u)" = 0 ] || die "this installs a service: run it as root"
case $NODE_ROLE in master | agent) ;; *) die "NODE_ROLE $NODE_ROLE is neither master nor agent" ;; esac

install_binary() {
	[ -x "$SHARED/bin/appliance" ] || die "$SHARED/bin/appliance is missing: run 'make build' on the host first"
	cmp -s "$SHARED/bin/appliance" "$APPLIANCE" && return
	mkdir -p "$(dirname "$APPLIANCE")"
	install -m 755 "$SHARED/bin/appliance" "$APPLIANCE.new"
	mv "$APPLIANCE.new" "$APPLIANCE" # a running node keeps its old file
	UPDATED=yes
	say "installed $APPLIANCE"
}

write_hosts() {
	[ -n "${HOSTS:-}" ] || return 0
	{
		sed '/# appliance begin/,/# appliance end/d' /etc/hosts | grep -v "^127.0.1.1[[:space:]].*$NODE_NAME" || true
		echo "# appliance begin"
		echo "$HOSTS"
		echo "# appliance end"
	} >/etc/hosts.new
	if cmp -s /etc/hosts.new /etc/hosts; then rm /etc/hosts.new; return; fi
	cat /etc/hosts.new >/etc/hosts # in place: it may be a mount
	rm /etc/hosts.new
	say "wrote /etc/hosts"
}

# The marker, not the data directory, says that init or join went through.
member() { [ -e "$DATA/.provisioned" ]; }
done_once() { touch "$DATA/.provisioned"; }

# A JSON string member of a flat object, without needing jq on the machine.
field() { sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\([^\"]*\)\".*/\1/p" | head -n 1; }

found_cluster() {
	umask 077 # tokens are secrets
	mkdir -p "$DATA"
	if [ ! -s "$DATA/init.json" ]; then # there if this machine stopped just after init
		# shellcheck disable=SC2086 # the flags are words
		"$APPLIANCE" init --name "$NODE_NAME" --advertise "$NODE_ADDRESS" --no-start --json ${INIT_FLAGS:-} >"$DATA/init.json.new"
		mv "$DATA/init.json.new" "$DATA/init.json"
	fi
	umask 022
	done_once
	say "made the cluster"
}

hand_out_tokens() {
	[ -e "$DATA/init.json" ] || return 0
	umask 077
	mkdir -p "$JOIN"
	for role in master agent; do
		token=$(tr -d '\n' <"$DATA/init.json" | field "$role")
		[ -n "$token" ] || die "init printed no token for role $role: see $DATA/init.json"
		printf '%s\n' "$token" >"$JOIN/$role.new"
		mv "$JOIN/$role.new" "$JOIN/$role"
	done
	umask 022
}

join_cluster() {
	waited=0
	until [ -s "$JOIN/$NODE_ROLE" ]; do
		[ "$waited" -lt "$WAIT" ] || die "no join token at $JOIN/$NODE_ROLE after $WAIT s: provision the first master ($FIRST_MASTER) first"
		waited=$((waited + 1))
		sleep 1
	done
	set -- --name "$NODE_NAME" --advertise "$NODE_ADDRESS" --role "$NODE_ROLE" --token "$(cat "$JOIN/$NODE_ROLE")" --no-start
	for attribute in ${NODE_ATTRIBUTES:-}; do
		set -- "$@" --attribute "$attribute"
	done
	mkdir -p "$DATA"
	"$APPLIANCE" join "$@" "$FIRST_MASTER:7600"
	done_once
	say "joined as $NODE_ROLE"
}

start_service() {
	"$APPLIANCE" service install # writes the systemd unit; does nothing if it is there
	systemctl enable --quiet appliance
	if [ "${UPDATED:-}" = yes ] && systemctl is-active --quiet appliance; then
		systemctl restart appliance # containers go on meanwhile
		say "restarted with the new binary"
	else
		systemctl start appliance
	fi
}

install_binary
write_hosts
if ! member; then
	if [ "$NODE_ADDRESS" = "$FIRST_MASTER" ]; then found_cluster; else join_cluster; fi
fi
[ "$NODE_ADDRESS" != "$FIRST_MASTER" ] || hand_out_tokens
start_service
say "$NODE_NAME is ready"
