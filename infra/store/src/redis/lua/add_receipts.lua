-- KEYS: tallies. ARGV: for each, the records to add. Gives the lengths of those to be written anew, 0 for others.
local long = {}
for n, tally in ipairs(KEYS) do long[n] = log(tally, ARGV[n]) end
return long
