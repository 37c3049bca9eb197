#!/bin/sh
# make simulate-fleet: fleets after an outage, as a table and a plot; about five minutes.
# fleet.sh BUILDDIR [SEED]
set -eu
fleet=$1/simulate/fleet
out=$1/simulate
seed=${2:-1}

run() { # NAME ARGUMENT...
	name=$1
	shift
	"$fleet" --seed "$seed" --csv "$out/$name.csv" "$@"
}

echo '| records/s it takes | of what comes | over that | peak load | refused | waves | cleared after | at best |'
echo '|---|---|---|---|---|---|---|---|'
run 429-30-20000 --capacity 20000
run 429-30-10000 --capacity 10000
run 429-30-5000 --capacity 5000
run 429-none-10000 --capacity 10000 --retry-after -1
run 429-300-10000 --capacity 10000 --retry-after 300
run 503-30-10000 --capacity 10000 --status 503

if command -v gnuplot >/dev/null; then
	gnuplot <<-END
		set terminal svg size 900,500 font "sans,13" background rgb "white"
		set output "$out/fleet.svg"
		set datafile separator comma
		set title "100,000 agents after 8 hours without their endpoint"
		set xlabel "minutes since it came back"
		set ylabel "requests a second / what it can take"
		set yrange [0:1.6]
		set xrange [0:60]
		set grid
		set key top right
		plot 1.2 title "1.2" dt 2 lc "gray40", \
		     for [f in "429-30-20000 429-30-10000 429-300-10000"] \
		     "$out/".f.".csv" using (\$1/60):2 skip 1 with lines title f noenhanced
	END
	echo "plot: $out/fleet.svg"
else
	echo "no plot: gnuplot is not installed"
fi
