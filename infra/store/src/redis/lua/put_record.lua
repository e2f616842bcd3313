-- KEYS: record, names on its shelf, the shelf's edition. ARGV: name, record, the edition it must have or nothing.
-- Gives whether it was written.
if ARGV[3] ~= '' and (call('GET', KEYS[3]) or '0') ~= ARGV[3] then return 0 end
call('SET', KEYS[1], ARGV[2])
call('ZADD', KEYS[2], 0, ARGV[1])
call('INCR', KEYS[3])
return 1
